"""`vecbeam sync CONFIG`: only what changed since the last run, deletions included, in the served collection.

With nothing served yet it does what `backfill` does. With nothing changed it embeds nothing and writes nothing.
"""

from __future__ import annotations

from pipelines.run.progress import Progress
from pipelines.run.session import Phase, running
from pipelines.steps.collection.server import check_server, check_vectors
from pipelines.steps.corpus.source import prepare
from pipelines.steps.publish.in_step import bring_collection, check_served
from pipelines.steps.quality.quality_gate import check_gate
from pipelines.steps.snapshot.compaction import compact
from pipelines.steps.snapshot.corpus_fit import fitted_source
from pipelines.steps.snapshot.embedding import bring_up_to_date
from schemas.config import Config
from schemas.run_report import Report


def sync(config: Config, progress: Progress | None = None, *, allow_deletes: bool = False, wait: bool = True) -> Report:
    """Brings checkpoint and collection in sync with the corpus.

    Args:
        allow_deletes: lifts `corpus.max_deleted`.
        wait: false to end once a job on other machines has started, or is found to run still.

    Raises:
        SpaceMismatchError: if the served collection is of another space than the configuration's encoder.
        CollectionError: if it has other fields or another index than the configuration.
        GateError: if more would be deleted than allowed, or the rows are not right afterwards.
        RejectsError: if more was rejected than allowed; then the served collection stays as it is.
    """
    with running("sync", config, progress, wait=wait) as session:
        with Phase(session, "startup"):
            session.progress.step("prepare")
            check_server(config.collection)
            source = prepare(config)
            check_vectors(config, source.models.layout)
            check_gate(config, source.models.layout)
            stands = check_served(config, source)
        session.report.space = source.models.space.id
        with session.exclusive():
            source = fitted_source(session, source)
            before = source.checkpoint.current_snapshot()
            snapshot = bring_up_to_date(session, source, stands, allow_deletes=allow_deletes)
            if before is not None and snapshot.name != before.name:
                snapshot = compact(session, source.checkpoint, snapshot)
            bring_collection(session, source, snapshot, stands, allow_deletes=allow_deletes)
    return session.report
