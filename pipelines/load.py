"""`vecbeam load CONFIG`: the current snapshot of the checkpoint to a published collection, without an encoder."""

from __future__ import annotations

import json

from pipelines import beam_runner
from pipelines.progress import Progress
from pipelines.publishing import check_milvus, publish
from pipelines.session import Phase, Session
from schemas.config import Config
from schemas.errors import CheckpointError, SpaceMismatchError, VecbeamError
from schemas.report import Report
from transforms import filesystem
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.encoders import resolve


def load(config: Config, progress: Progress | None = None) -> Report:
    """Loads, indexes, verifies and publishes what the checkpoint holds.

    Raises:
        CheckpointError: where there is no snapshot.
        SpaceMismatchError: where the snapshot is of another space than the configuration's encoder.
    """
    with progress or Progress(quiet=True) as shown:
        session = Session("load", config, shown)
        try:
            with Phase(session, "startup"):
                checkpoint, snapshot, dimensions = open_snapshot(config)
                check_milvus(config)
            session.report.items.read = snapshot.total("items_read")
            session.report.rejects = snapshot.errors()
            session.report.items.rejected = sum(session.report.rejects.values())
            session.report.items.unchanged = snapshot.total("items")
            session.report.chunks.reused = snapshot.total("rows")
            publish(session, checkpoint, snapshot, dimensions)
        except VecbeamError as error:
            error.report = session.finish(error)
            raise
        return session.finish()


def open_snapshot(config: Config) -> tuple[Checkpoint, Snapshot, int]:
    """The checkpoint of a configuration, its current snapshot, and the dimensions of its vectors."""
    beam_runner.prepare_filesystems(config)
    space = resolve(config.encoder).space
    checkpoint = Checkpoint(config.checkpoint, config.name, space.id)
    snapshot = checkpoint.current_snapshot()
    if snapshot is None:
        raise CheckpointError(f"{checkpoint.root} holds no snapshot", "run vecbeam backfill first")
    if snapshot.space_id != space.id:
        raise SpaceMismatchError(
            f"the current snapshot {snapshot.name} is of space {snapshot.space_id}, the configuration's encoder "
            f"{config.encoder.model} is of space {space.id}",
            "use the configuration that made it, or run vecbeam backfill with this one",
        )
    described = json.loads(filesystem.read_bytes(filesystem.join(checkpoint.root, snapshot.space_id, "space.json")))
    return checkpoint, snapshot, int(described["space"]["dimensions"])
