"""Brings what is served in sync with a snapshot: checks it, updates it in place, or publishes a new collection."""

from __future__ import annotations

from pipelines.run.session import Session
from pipelines.steps.collection.served import find_served, look
from pipelines.steps.corpus.source import Source
from pipelines.steps.judgement.limits import check_shrinking
from pipelines.steps.judgement.standing import Standing, standing
from pipelines.steps.publish.publication import publish
from pipelines.steps.publish.update import Update, check_fits
from schemas.config import Config
from schemas.errors import SpaceMismatchError
from schemas.layout import Space
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
        check_fitted(config, source, served)
        check_fits(served, config, None, source.models.layout)
    return standing(config, served, source.checkpoint)


def check_fitted(config: Config, source: Source, served: milvus.CollectionState) -> None:
    """Refuses to fit a model where something is served: its rows would be of another space.

    Raises:
        SpaceMismatchError: if a model has no fit with the configured settings.
    """
    for model in source.models.to_fit.values():
        space = Space.from_json(served.space_json) if served.space_json else None
        differences = "; ".join(source.models.space.differences(space)) if space is not None else ""
        raise SpaceMismatchError(
            f"{config.name} serves {served.name} of space {served.space_id}, and the checkpoint holds no {model.name} "
            f"that was fitted with the configured settings: {differences}",
            "use the settings that it was fitted with, or run vecbeam reindex, which fits another one",
        )


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
