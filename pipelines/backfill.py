"""`vecbeam backfill CONFIG`: everything from corpus to published collection.

Run it again after a crash, a Ctrl-C or a full disk: it goes on where it stopped. Run it again after success: it embeds
nothing and writes nothing.
"""

from __future__ import annotations

from pipelines.corpus import prepare
from pipelines.embedding import bring_up_to_date
from pipelines.limits import standing
from pipelines.progress import Progress
from pipelines.publishing import publish
from pipelines.serving import look
from pipelines.session import Phase, running
from schemas.config import Config
from schemas.report import Report


def backfill(config: Config, progress: Progress | None = None, *, allow_deletes: bool = False) -> Report:
    """Runs the whole pipeline.

    Args:
        allow_deletes: lifts `corpus.max_deleted`.

    Raises:
        VecbeamError: with the report's path still written where the run had begun.
    """
    with running("backfill", config, progress) as session:
        with Phase(session, "startup"):
            session.progress.step("prepare")
            source = prepare(config)
            stands = standing(config, look(config), source.checkpoint)
        session.report.space = source.model.space.id
        with session.exclusive():
            snapshot = bring_up_to_date(session, source, stands, allow_deletes=allow_deletes)
            publish(session, source.checkpoint, snapshot, source.model.space, stands, allow_deletes=allow_deletes)
    return session.report
