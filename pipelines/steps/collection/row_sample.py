"""Some rows of a snapshot with all their columns: what a run looks at that has no time for every row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from schemas.identity import digest
from transforms.checkpoint import Checkpoint, Snapshot

ROWS = 400
PARTS = 4
"""A few parts and some rows of each: a part is read as a whole, so rows from everywhere would read everything."""


def sample_rows(checkpoint: Checkpoint, snapshot: Snapshot, seed: str) -> Iterator[pa.Table]:
    """At most `ROWS` rows of at most `PARTS` parts, all if there are no more, one table per part.

    Args:
        seed: what the choice follows from. With the id of a run each run looks at other rows, and its report tells
            which they were.
    """
    sizes = np.asarray(snapshot.parts.column("rows").to_pylist(), dtype=np.int64)
    chance = np.random.default_rng(int(digest(seed), 16))
    some = min(PARTS, int((sizes > 0).sum()))
    if some == 0:
        return
    chosen = chance.choice(len(sizes), some, replace=False, p=sizes / sizes.sum())
    left = ROWS
    # The smallest first: what it does not use of its share, the others get.
    for turn, position in enumerate(sorted(chosen.tolist(), key=lambda position: int(sizes[position]))):
        rows = checkpoint.read_live(snapshot.live_part(position))
        take = min(rows.num_rows, left // (some - turn))
        left -= take
        yield rows.take(pa.array(np.sort(chance.choice(rows.num_rows, take, replace=False))))
