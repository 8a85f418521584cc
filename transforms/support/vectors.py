"""Vectors of any kind as Arrow arrays: made from numbers, and checked for invalid vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import EncoderError
from schemas.layout import VectorKind

Floats = NDArray[np.float32]
_MOST_NUMBERS = 2**31 - 1


def dense_array(matrix: Floats) -> pa.ListArray:
    """Dense vectors, one a row.

    Args:
        matrix: float32[n, dimensions]

    >>> dense_array(np.ones((2, 3), np.float32)).to_pylist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    numbers = np.ascontiguousarray(matrix, np.float32)
    offsets = pa.array(np.arange(len(numbers) + 1, dtype=np.int32) * np.int32(numbers.shape[1]))
    return pa.ListArray.from_arrays(offsets, pa.array(numbers.reshape(-1)), type=VectorKind.DENSE.arrow_type)


def matrix_of(vectors: pa.Array) -> Floats:
    """Dense vectors as float32[n, dimensions], without a copy where they lie in one piece.

    Raises:
        ValueError: if they are not all of one length.
    """
    rows = len(vectors)
    if not rows:
        return np.zeros((0, 0), np.float32)
    flat: Floats = vectors.flatten().to_numpy(zero_copy_only=False)
    lengths = vectors.value_lengths().to_numpy()
    if (lengths != lengths[0]).any():
        raise ValueError(f"vectors of {lengths.min()} to {lengths.max()} dimensions in one table")
    return flat.reshape(rows, -1)


def sparse_array(rows: Iterable[tuple[Any, Any]]) -> pa.StructArray:
    """Sparse vectors from (positions, values) of each row; zeros are left out and positions sorted.

    >>> sparse_array([([5, 2], [1.0, 0.5]), ([1], [0.0])]).to_pylist()
    [{'indices': [2, 5], 'values': [0.5, 1.0]}, {'indices': [], 'values': []}]
    """
    positions: list[NDArray[np.uint32]] = []
    numbers: list[Floats] = []
    for indices, values in rows:
        at, found = np.asarray(indices, np.uint32), np.asarray(values, np.float32)
        kept = np.flatnonzero(found)
        order = kept[np.argsort(at[kept], kind="stable")]
        positions.append(at[order])
        numbers.append(found[order])
    offsets = pa.array(np.cumsum([0, *map(len, positions)]).astype(np.int32))
    kind = VectorKind.SPARSE.arrow_type
    flat = [np.concatenate(part) if part else np.zeros(0) for part in (positions, numbers)]
    arrays = [
        pa.ListArray.from_arrays(offsets, pa.array(numbers, field.type.value_type), type=field.type)
        for numbers, field in zip(flat, kind, strict=True)
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def multi_array(rows: Iterable[Floats]) -> pa.ListArray:
    """Several vectors per row.

    Args:
        rows: float32[tokens, dimensions] of each

    Raises:
        EncoderError: if they are more numbers than an Arrow array can have.

    >>> multi_array([np.ones((2, 1), np.float32), np.zeros((0, 1), np.float32)]).to_pylist()
    [[[1.0], [1.0]], []]
    """
    matrices = list(rows)
    if sum(matrix.size for matrix in matrices) > _MOST_NUMBERS:
        raise EncoderError(
            f"the vectors of the tokens of {len(matrices):,} chunks are more than {_MOST_NUMBERS:,} numbers",
            "lower batch_rows",
        )
    inner = dense_array(np.concatenate(matrices) if matrices else np.zeros((0, 1), np.float32))
    offsets = pa.array(np.cumsum([0, *map(len, matrices)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, inner, type=VectorKind.MULTI.arrow_type)


def not_finite(vectors: pa.Array) -> NDArray[np.bool_]:
    """Which vectors have NaN or infinity, bool[n]."""
    numbers, borders = _numbers(vectors)
    return _any_between(~np.isfinite(numbers), borders)


def without_length(vectors: pa.Array) -> NDArray[np.bool_]:
    """Which vectors are 0 throughout, or have no number at all, bool[n]."""
    numbers, borders = _numbers(vectors)
    return ~_any_between(numbers != 0, borders)


def _any_between(marks: NDArray[np.bool_], borders: NDArray[np.int64]) -> NDArray[np.bool_]:
    sums = np.concatenate([[0], np.cumsum(marks)])
    found: NDArray[np.bool_] = sums[borders[1:]] > sums[borders[:-1]]
    return found


def _numbers(vectors: pa.Array) -> tuple[Floats, NDArray[np.int64]]:
    """All numbers of vectors of any kind, and where those of each row begin and end, int64[n + 1]."""
    lists = vectors.field("values") if pa.types.is_struct(vectors.type) else vectors
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values
    if pa.types.is_list(values.type):
        offsets = values.offsets.to_numpy().astype(np.int64)[offsets]
        values = values.values
    return values.to_numpy(zero_copy_only=False), offsets


def unit_vectors(vectors: Floats) -> Floats:
    """Vectors at length 1, float32[n, dimensions]; one without a length stays 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)
