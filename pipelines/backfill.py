"""`vecbeam backfill CONFIG`: embeds the corpus, then builds and publishes a collection.

Run it again after a crash, a Ctrl-C or a full disk: it resumes where it stopped. Run it again after success: it embeds
nothing and writes nothing.
"""

from __future__ import annotations

from pipelines.run.progress import Progress
from pipelines.run.session import Phase, running
from pipelines.steps.collection.served import look
from pipelines.steps.collection.server import check_server, check_vectors
from pipelines.steps.corpus.source import prepare
from pipelines.steps.judgement.standing import standing
from pipelines.steps.publish.publication import publish
from pipelines.steps.quality.quality_gate import check_gate
from pipelines.steps.snapshot.corpus_fit import fitted_source
from pipelines.steps.snapshot.embedding import bring_up_to_date
from schemas.config import Config
from schemas.run_report import Report


def backfill(
    config: Config, progress: Progress | None = None, *, allow_deletes: bool = False, wait: bool = True
) -> Report:
    """Embeds the corpus and publishes its collection; returns the report.

    Args:
        allow_deletes: lifts `corpus.max_deleted`.
        wait: false to end once a job on other machines has started, or is found to run still.

    Raises:
        VecbeamError: with a written report, if the run had begun.
    """
    with running("backfill", config, progress, wait=wait) as session:
        with Phase(session, "startup"):
            session.progress.step("prepare")
            check_server(config.collection)
            source = prepare(config)
            check_vectors(config, source.models.layout)
            check_gate(config, source.models.layout)
            stands = standing(config, look(config), source.checkpoint)
        session.report.space = source.models.space.id
        with session.exclusive():
            source = fitted_source(session, source)
            snapshot = bring_up_to_date(session, source, stands, allow_deletes=allow_deletes)
            publish(session, source.checkpoint, snapshot, source.models.layout, stands, allow_deletes=allow_deletes)
    return session.report
