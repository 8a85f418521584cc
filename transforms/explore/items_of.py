"""Items of a sample of rows: each with the mean of its rows' vectors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.explore.live_rows import Sample

OF_ROWS = ("id", "chunk", "start", "end")
"""Columns of a row that an item does not have."""


def items_of(sample: Sample) -> Sample:
    """One row for each item, its first one, with the mean of the normalised vectors of the item's rows.

    The columns of `OF_ROWS` are left out.
    """
    codes = pc.dictionary_encode(sample.rows.column("item_id").combine_chunks())
    items = codes.indices.to_numpy().astype(np.int64)
    first = np.unique(items, return_index=True)[1]
    sums = np.zeros((len(first), sample.vectors.shape[1]), np.float32)
    np.add.at(sums, items, sample.normalised)
    means = np.asarray(sums / np.bincount(items)[:, None], np.float32)
    rows = sample.rows.take(pa.array(first)).drop_columns([one for one in OF_ROWS if one in sample.rows.column_names])
    return Sample(rows, means, sample.total, sample.seed)
