"""The rows that a command looks at: those of the newest snapshot, or of what is served."""

from __future__ import annotations

from dataclasses import replace

from pipelines.run import beam_job
from pipelines.steps.collection.held import held_snapshot
from pipelines.steps.collection.served import served_state
from schemas.config import Config
from schemas.errors import CheckpointError
from transforms import milvus
from transforms.checkpoint import Checkpoint
from transforms.explore.live_rows import LiveRows


def current_rows(config: Config, *, served: bool = False) -> LiveRows:
    """The rows of the newest snapshot of a configuration's checkpoint. Reads no model, and does not call Milvus.

    Args:
        served: the rows of the snapshot that the served collection holds instead.

    Raises:
        CheckpointError: if there is no snapshot, or it has no row.
        CollectionError: if nothing is served, or Milvus does not answer.
    """
    beam_job.prepare_filesystems(config)
    checkpoint = Checkpoint(config.checkpoint, config.name, "")
    if served:
        with milvus.connected(config.collection, create=False) as connection:
            snapshot = held_snapshot(checkpoint, served_state(connection, config))
    else:
        names = checkpoint.snapshots()
        if not names:
            raise CheckpointError(f"{checkpoint.root} has no snapshot", "run vecbeam backfill first")
        snapshot = checkpoint.read_snapshot(names[-1])
    rows = LiveRows(replace(checkpoint, space_id=snapshot.space_id), snapshot)
    _ = rows.schema  # a snapshot without rows is refused here
    return rows
