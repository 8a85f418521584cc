"""Rows of a snapshot that an earlier snapshot of the same space does not have."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import SpaceMismatchError
from transforms.checkpoint import Checkpoint
from transforms.checkpoint.snapshot import LivePart
from transforms.explore.live_rows import LiveRows

Positions = NDArray[np.int64]


def rows_since(rows: LiveRows, earlier: LiveRows) -> Positions:
    """Positions, int64[n] ascending, of the rows that are new or have another content.

    It reads ids and content hashes of those parts alone that only one of the snapshots has: 8 bytes of memory a row.

    Raises:
        SpaceMismatchError: if the snapshots are of two spaces.
        CheckpointError: if a part is missing or damaged.
    """
    if rows.snapshot.space_id != earlier.snapshot.space_id:
        raise SpaceMismatchError(
            f"the snapshot {rows.snapshot.name} is of space {rows.snapshot.space_id}, and {earlier.snapshot.name} of "
            f"space {earlier.snapshot.space_id}: their vectors can't be compared",
            "name a snapshot of the same space",
        )
    before = {part.name: part for part in earlier.snapshot.live_parts}
    after = {part.name: part for part in rows.snapshot.live_parts}
    known = [np.zeros(0, np.int64)]
    for name, part in before.items():
        left = _without(earlier.checkpoint, part, after.get(name))
        if left is not None:
            known.append(_fingerprints(left))
    seen = np.concatenate(known)
    found = [np.zeros(0, np.int64)]
    start = 0
    sizes = rows.snapshot.parts.column("rows").to_pylist()
    for size, (name, part) in zip(sizes, after.items(), strict=True):
        left = _without(rows.checkpoint, part, before.get(name))
        if left is not None:
            is_new = ~np.isin(_fingerprints(left), seen)
            found.append(start + left.column("@at").to_numpy()[is_new])
        start += size
    return np.concatenate(found)


def _without(checkpoint: Checkpoint, part: LivePart, other: LivePart | None) -> pa.Table | None:
    """Live rows of a part that are not live in the other snapshot's view of it, with their place among live rows."""
    gained: NDArray[np.int32] | None = None
    if other is not None:
        gained = np.setdiff1d(other.dead, part.dead)
        if not len(gained):
            return None
    whole = checkpoint.read_part(part.name, ["id", "content_hash"])
    live = np.setdiff1d(np.arange(whole.num_rows, dtype=np.int32), part.dead, assume_unique=True)
    places = np.arange(len(live), dtype=np.int64)
    if gained is not None:
        places = np.flatnonzero(np.isin(live, gained)).astype(np.int64)
    return whole.take(pa.array(live[places])).append_column("@at", pa.array(places))


def _fingerprints(rows: pa.Table) -> NDArray[np.int64]:
    # The interpreter's own hash: 64 bits, the same for the length of this process.
    pairs = zip(rows.column("id").to_pylist(), rows.column("content_hash").to_pylist(), strict=True)
    return np.fromiter(map(hash, pairs), np.int64, rows.num_rows)
