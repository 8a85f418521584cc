"""`vecbeam verify CONFIG`: the served collection against the checkpoint, row by row, and its recall."""

from __future__ import annotations

from pipelines.load import open_snapshot
from pipelines.progress import Progress
from pipelines.publishing import verify_served
from pipelines.session import Phase, Session
from schemas.config import Config
from schemas.errors import VecbeamError
from schemas.report import Report


def verify(config: Config, progress: Progress | None = None) -> Report:
    """Checks what searchers see. Writes nothing but its report.

    Raises:
        CollectionError: where nothing is published.
        GateError: where rows are missing, unexpected or stale, or recall is under `verify.recall_at_10`.
    """
    with progress or Progress(quiet=True) as shown:
        session = Session("verify", config, shown)
        try:
            with Phase(session, "startup"):
                checkpoint, snapshot, dimensions = open_snapshot(config)
            session.report.items.read = snapshot.total("items_read")
            session.report.rejects = snapshot.errors()
            session.report.items.rejected = sum(session.report.rejects.values())
            session.report.items.unchanged = snapshot.total("items")
            verify_served(session, checkpoint, snapshot, dimensions)
        except VecbeamError as error:
            error.report = session.finish(error)
            raise
        return session.finish()
