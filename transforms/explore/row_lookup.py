"""Where rows are, by their ids or the ids of their items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats, LiveRows, Sample

Positions = NDArray[np.int64]


class FoundRows(NamedTuple):
    """Rows that were found by ids.

    Attributes:
        sample: all of them.
        places: by each id that something has, positions in the sample, int64[n] ascending.
    """

    sample: Sample
    places: dict[str, Positions]

    def mean(self, one: str) -> Floats:
        """The mean of the normalised vectors of an id, float32[dimensions]; of one row its own vector."""
        here = self.sample.taken(self.places[one])
        return here.vectors[0] if len(here) == 1 else np.asarray(here.normalised.mean(axis=0), np.float32)


def find_rows(rows: LiveRows, vector: str, ids: Sequence[str]) -> FoundRows:
    """The rows of each id, with their vectors.

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
    lists = found["item_id"] | found["id"]
    among = np.asarray(sorted({at for places in lists.values() for at in places}), np.int64)
    sample = rows.sample(vector, among=among, most=max(1, len(among)))
    return FoundRows(sample, {one: np.searchsorted(among, places) for one, places in lists.items()})
