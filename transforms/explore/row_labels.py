"""Values of a column as numbers: the groups, labels or colours of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowLabels:
    """The value of a column for each row.

    Attributes:
        codes: int64[n], a position in `names`; -1 for a row without a value.
        names: the different values as text, sorted.
    """

    codes: NDArray[np.int64]
    names: list[str]

    @property
    def has_value(self) -> NDArray[np.bool_]:
        """Which rows have a value, bool[n]."""
        return self.codes >= 0

    def named(self, codes: NDArray[np.int64]) -> pa.Array:
        """The values of some codes as text; null for -1."""
        return pa.array([self.names[code] if code >= 0 else None for code in codes.tolist()], pa.string())


def row_labels(rows: pa.Table, column: str) -> RowLabels:
    """The values of a column. A list of values is one value."""
    values = rows.column(column)
    if pa.types.is_nested(values.type):
        texts = pa.array([None if one is None else str(one) for one in values.to_pylist()], pa.string())
    else:
        texts = pc.cast(values, pa.string()).combine_chunks()
    names = sorted(one for one in pc.unique(texts).to_pylist() if one is not None)
    codes = pc.index_in(texts, value_set=pa.array(names, pa.string())).fill_null(-1)
    return RowLabels(codes.to_numpy(zero_copy_only=False).astype(np.int64), names)
