"""The rows that a command looks at: those of the newest snapshot, or of what is served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.steps.collection.held import held_snapshot
from pipelines.steps.collection.served import served_state
from schemas.config import Config
from schemas.errors import CheckpointError
from transforms import milvus
from transforms.checkpoint import Checkpoint
from transforms.explore.live_rows import LiveRows
from transforms.explore.rows_since import rows_since


def current_rows(config: Config, *, served: bool = False) -> LiveRows:
    """The rows of the newest snapshot of a configuration's checkpoint. Reads no model, and does not call Milvus.

    Args:
        served: the rows of the snapshot that the served collection holds instead.

    Raises:
        CheckpointError: if there is no snapshot, or it has no row.
        CollectionError: if nothing is served, or Milvus does not answer.
    """
    prepare_filesystems(config)
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


def rows_before(config: Config, rows: LiveRows) -> tuple[LiveRows, NDArray[np.int64]]:
    """The newest earlier snapshot that does not have all of the rows, and their positions; see `rows_since`.

    Snapshots with the same rows, which a merge of small parts writes, are passed over. Only those of the same space
    count.

    Raises:
        CheckpointError: if there is none, or a part of it is missing.
    """
    prepare_filesystems(config)
    names = rows.checkpoint.snapshots(rows.snapshot.space_id)
    for name in reversed([one for one in names if one < rows.snapshot.name]):
        earlier = LiveRows(rows.checkpoint, rows.checkpoint.read_snapshot(name))
        since = rows_since(rows, earlier)
        if len(since):
            return earlier, since
    raise CheckpointError(
        f"{rows.checkpoint.root} has no earlier snapshot of the space {rows.snapshot.space_id} without a row of "
        f"{rows.snapshot.name}",
        "run vecbeam sync once the corpus has new items, or look at all rows",
    )
