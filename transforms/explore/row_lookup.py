"""Where rows are, by their ids or the ids of their items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.explore.live_rows import LiveRows

Positions = NDArray[np.int64]


def find_rows(rows: LiveRows, ids: Sequence[str]) -> dict[str, Positions]:
    """Positions, int64 ascending, of the rows of each id; ids that nothing has are left out.

    An id of a row is that row; an id of an item is all of its rows. It reads the ids of all rows, and keeps none.

    Raises:
        CheckpointError: if a part is missing or damaged.
    """
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, dict[str, list[int]]] = {"id": {}, "item_id": {}}
    start = 0
    for table in rows.tables(["id", "item_id"]):
        for column, places in found.items():
            values = pc.cast(table.column(column), pa.string())
            for at in np.flatnonzero(pc.is_in(values, value_set=wanted).to_numpy(zero_copy_only=False)).tolist():
                places.setdefault(values[at].as_py(), []).append(start + at)
        start += table.num_rows
    return {one: np.asarray(places, np.int64) for one, places in (found["item_id"] | found["id"]).items()}
