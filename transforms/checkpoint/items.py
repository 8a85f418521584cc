"""The table of items of a part: where the rows of each begin, and which are live."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def first_rows(items: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The first row in its part of each item, int64[n], from the items of a part."""
    rows = items.column("rows").to_numpy().astype(np.int64)
    starts: np.ndarray[Any, np.dtype[np.int64]] = np.cumsum(rows) - rows
    return starts


def live_items(items: pa.Table, dead: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which items of a part are live, bool[n]; the rows of an item live and die together."""
    gone = np.zeros(int(pc.sum(items.column("rows")).as_py() or 0) + 1, bool)
    gone[dead] = True
    live: np.ndarray[Any, np.dtype[np.bool_]] = ~gone[first_rows(items)]
    return live
