"""`vecbeam backfill CONFIG`: everything from corpus to published collection.

Run it again after a crash, a Ctrl-C or a full disk: it takes up where it stopped. Run it again after success: it embeds
nothing and writes nothing.
"""

from __future__ import annotations

from pipelines.embedding import bring_up_to_date, prepare
from pipelines.progress import Progress
from pipelines.publishing import check_milvus, publish
from pipelines.session import Phase, Session
from schemas.config import Config
from schemas.errors import VecbeamError
from schemas.report import Report


def backfill(config: Config, progress: Progress | None = None) -> Report:
    """Runs the whole pipeline.

    Raises:
        VecbeamError: with the report's path still written where the run had begun.
    """
    with progress or Progress(quiet=True) as shown:
        session = Session("backfill", config, shown)
        try:
            with Phase(session, "startup"):
                shown.step("prepare")
                source = prepare(config)
                check_milvus(config)
            session.report.space = source.model.space.id
            snapshot = bring_up_to_date(session, source)
            publish(session, source.checkpoint, snapshot, source.model.space.dimensions)
        except VecbeamError as error:
            error.report = session.finish(error)
            raise
        return session.finish()
