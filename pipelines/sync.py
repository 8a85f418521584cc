"""`vecbeam sync CONFIG`: only what changed since the last run, deletions included, in the served collection.

With nothing served yet it does what `backfill` does. With nothing changed it embeds nothing and writes nothing.
"""

from __future__ import annotations

from pipelines.compacting import compact
from pipelines.corpus import Source, prepare
from pipelines.embedding import bring_up_to_date
from pipelines.limits import Standing, check_shrinking, standing
from pipelines.progress import Progress
from pipelines.publishing import publish
from pipelines.serving import find_served, look
from pipelines.session import Phase, Session, running
from pipelines.updating import Update, check_fits
from schemas.config import Config
from schemas.report import Report
from transforms import collection as milvus
from transforms.checkpoint import Snapshot


def sync(config: Config, progress: Progress | None = None, *, allow_deletes: bool = False) -> Report:
    """Brings checkpoint and collection in step with the corpus.

    Args:
        allow_deletes: lifts `corpus.max_deleted`.

    Raises:
        SpaceMismatchError: where the served collection is of another space than the configuration's encoder.
        CollectionError: where it has other fields or another index than the configuration.
        GateError: where more would be deleted than allowed, or the rows are not right afterwards.
        RejectsError: where more was rejected than allowed; then the served collection stays as it is.
    """
    with running("sync", config, progress) as session:
        with Phase(session, "startup"):
            session.progress.step("prepare")
            source = prepare(config)
            stands = check_served(config, source)
        session.report.space = source.model.space.id
        with session.exclusive():
            before = source.checkpoint.current_snapshot()
            snapshot = bring_up_to_date(session, source, stands, allow_deletes=allow_deletes)
            if before is not None and snapshot.name != before.name:
                snapshot = compact(session, source.checkpoint, snapshot)
            bring_collection(session, source, snapshot, stands, allow_deletes=allow_deletes)
    return session.report


def check_served(config: Config, source: Source) -> Standing:
    """What is served; refuses, before anything is read, a collection that rows of this configuration may not go into.

    Raises:
        SpaceMismatchError: where it is of another space.
        CollectionError: where it has other fields or another index.
    """
    served = look(config)
    if served is not None:
        check_fits(served, config, None, source.model.space)
    return standing(config, served, source.checkpoint)


def bring_collection(
    session: Session, source: Source, snapshot: Snapshot, stands: Standing, *, allow_deletes: bool = False
) -> None:
    """Brings what is served to a snapshot, in place; publishes it where nothing is served."""
    space, checkpoint = source.model.space, source.checkpoint
    with milvus.connected(session.config.collection) as client:
        served = find_served(client, session.config)
        if served is not None:
            if not allow_deletes:
                check_shrinking(
                    snapshot.total("items"), stands, session.config.corpus.max_deleted, rows=snapshot.total("rows")
                )
            Update(session, checkpoint, snapshot, space, served, client, allow_deletes=allow_deletes).run()
            return
    publish(session, checkpoint, snapshot, space, stands, allow_deletes=allow_deletes)
