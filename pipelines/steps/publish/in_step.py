"""Brings what is served in sync with a snapshot: checks it, updates it in place, or publishes a new collection."""

from __future__ import annotations

from pipelines.run.session import Session
from pipelines.steps.collection.served import find_served, look
from pipelines.steps.corpus.source import Source
from pipelines.steps.judgement.limits import Standing, check_shrinking, standing
from pipelines.steps.publish.publication import publish
from pipelines.steps.publish.update import Update, check_fits
from schemas.config import Config
from transforms import milvus
from transforms.checkpoint import Snapshot


def check_served(config: Config, source: Source) -> Standing:
    """What is served; refuses, before anything is read, a collection that rows of this configuration may not go into.

    Raises:
        SpaceMismatchError: if it is of another space.
        CollectionError: if it has other fields or another index.
    """
    served = look(config)
    if served is not None:
        check_fits(served, config, None, source.models.layout)
    return standing(config, served, source.checkpoint)


def bring_collection(
    session: Session, source: Source, snapshot: Snapshot, stands: Standing, *, allow_deletes: bool = False
) -> None:
    """Brings what is served to a snapshot, in place; publishes it where nothing is served."""
    layout, checkpoint = source.models.layout, source.checkpoint
    with milvus.connected(session.config.collection) as connection:
        served = find_served(connection, session.config)
        if served is not None:
            if not allow_deletes:
                check_shrinking(
                    snapshot.total("items"), stands, session.config.corpus.max_deleted, rows=snapshot.total("rows")
                )
            Update(session, checkpoint, snapshot, layout, served, connection, allow_deletes=allow_deletes).run()
            return
    publish(session, checkpoint, snapshot, layout, stands, allow_deletes=allow_deletes)
