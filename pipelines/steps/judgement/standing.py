"""What is served when a run begins: limits compare with it."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.steps.collection.served import open_for_search
from schemas.config import Config
from schemas.errors import CheckpointError, CollectionError
from transforms import milvus
from transforms.checkpoint import Checkpoint


@dataclass(frozen=True)
class Standing:
    """What is served when a run begins.

    Attributes:
        collection: its name; "" where nothing is served.
        items: of the snapshot that it holds; None if the checkpoint does not have that snapshot.
        rows: of the collection, where `items` is None.
        snapshot: id of the snapshot that it holds; "" where the checkpoint does not have it.
    """

    collection: str = ""
    items: int | None = None
    rows: int = 0
    snapshot: str = ""

    def __str__(self) -> str:
        return f"the collection {self.collection} stays as it is" if self.collection else "nothing is served yet"


def standing(config: Config, served: milvus.CollectionState | None, checkpoint: Checkpoint) -> Standing:
    """What is served, with the number of its items by the checkpoint."""
    if served is None:
        return Standing()
    try:
        snapshot = checkpoint.find_snapshot(served.snapshot_id) if served.snapshot_id else None
    except CheckpointError:  # damaged
        snapshot = None
    if snapshot is not None:
        return Standing(served.name, snapshot.total("items"), snapshot=snapshot.id)
    try:
        with milvus.connected(config.collection) as connection:
            open_for_search(connection, served.name)
            return Standing(served.name, rows=milvus.count(connection, served.name))
    except CollectionError:  # it can't be loaded: then there is nothing to protect
        return Standing(served.name)
