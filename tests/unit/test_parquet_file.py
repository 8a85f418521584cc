"""Parquet files of the checkpoint: what a bit that flipped does."""

from __future__ import annotations

import io
import random

import numpy as np
import pyarrow as pa

from schemas.records import SCHEMA_VERSION
from transforms.support.storage.parquet_file import parquet, parquet_of


def test_a_bit_that_flipped_in_a_page_never_gives_other_values() -> None:
    vectors = pa.array(np.random.default_rng(0).normal(size=100 * 32).astype(np.float32))
    table = pa.table(
        {"id": [f"row {at}" for at in range(100)], "vector": pa.FixedSizeListArray.from_arrays(vectors, 32)}
    )
    data = parquet(table, {"schema_version": SCHEMA_VERSION})
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # the footer has no checksum
    chance = random.Random(0)
    noticed = 0
    for _ in range(300):
        damaged = bytearray(data)
        damaged[chance.randrange(pages)] ^= 1 << chance.randrange(8)
        try:
            read = parquet_of(io.BytesIO(bytes(damaged))).read()
        except (OSError, pa.ArrowException):
            noticed += 1
        else:
            assert read.equals(table)
    assert noticed > 200
