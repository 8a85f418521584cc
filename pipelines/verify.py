"""`vecbeam verify CONFIG`: the served collection against the checkpoint, row by row, and its recall."""

from __future__ import annotations

from dataclasses import replace

from pipelines.embedding import report_unchanged
from pipelines.load import open_snapshot
from pipelines.progress import Progress
from pipelines.publishing import Publication
from pipelines.serving import check_space, collection_spec, served_state
from pipelines.session import Phase, running
from pipelines.updating import Update
from schemas.config import Config
from schemas.report import Report
from transforms import collection as milvus


def verify(config: Config, progress: Progress | None = None, *, repair: bool = False) -> Report:
    """Checks what searchers see. Writes nothing but its report, unless it repairs.

    Args:
        repair: upserts what is missing or stale and deletes what is unexpected, from the checkpoint.

    Raises:
        CollectionError: where nothing is published.
        SpaceMismatchError: where the collection is of another space than the configuration's encoder.
        GateError: where rows are missing, unexpected or stale, or recall is under `verify.recall_at_10`.
    """
    with running("verify", config, progress) as session:
        session.report.could_change = repair
        with Phase(session, "startup"):
            checkpoint, snapshot, space = open_snapshot(config)
        report_unchanged(session, snapshot)
        with milvus.connected(config.collection) as client:
            served = served_state(client, config)
            check_space(served, config, space)
            session.report.verify.published = True
            if repair:
                with session.exclusive():
                    Update(session, checkpoint, snapshot, space, served, client).repair()
            spec = replace(collection_spec(config, snapshot, space), name=served.name)
            publication = Publication(session, checkpoint, snapshot, spec, client)
            publication.gate(publication.check_rows(), recall=True)
    return session.report
