"""The nearest rows by cosine: exact for few rows, by inverted lists (faiss' IndexIVFFlat) for many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.support.extras import need

Positions = NDArray[np.int64]

EXACT_ROWS = 20_000
"""Up to so many rows each is compared with each."""
QUERIES = 1_024
"""Rows that are searched at a time."""
MOST_PROBES = 32
"""Lists that are searched for a row: its nearest rows lie in its own list or in one of the nearest."""


def neighbour_index(vectors: Floats, seed: int = 0) -> Any:
    """An index of faiss over normalised vectors, by inner product.

    Args:
        vectors: float32[n, dimensions], each of length 1, or 0 throughout.
        seed: of the inverted lists.

    Raises:
        MissingExtraError: if faiss is not installed.
    """
    need("explore", "finding near rows", "faiss")
    import faiss

    rows, dimensions = vectors.shape
    matrix = np.ascontiguousarray(vectors, np.float32)
    if rows <= EXACT_ROWS:
        index: Any = faiss.IndexFlatIP(dimensions)
    else:
        lists = int(4 * np.sqrt(rows))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimensions), dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.nprobe = seed, min(MOST_PROBES, lists)
        chosen = np.random.default_rng(seed).choice(rows, min(rows, 40 * lists), replace=False)
        index.train(matrix[np.sort(chosen)])
    index.add(matrix)
    return index


def pieces(vectors: Floats, rows: int = QUERIES) -> Iterator[tuple[int, Floats]]:
    """Vectors in pieces of some rows, each with the position of its first row."""
    matrix = np.ascontiguousarray(vectors, np.float32)
    for start in range(0, len(matrix), rows):
        yield start, matrix[start : start + rows]


def nearest_others(vectors: Floats, k: int, seed: int = 0) -> tuple[Floats, Positions]:
    """The `k` nearest other rows of each row.

    Args:
        vectors: see `neighbour_index`.
        k: less than the number of rows.

    Returns:
        Cosines float32[n, k], descending, and positions int64[n, k]. Where the inverted lists find fewer, the cosine is
        -1 and the position -1.
    """
    index = neighbour_index(vectors, seed)
    cosines = np.empty((len(vectors), k), np.float32)
    positions = np.empty((len(vectors), k), np.int64)
    for start, piece in pieces(vectors):
        found, others = index.search(piece, k + 1)
        # A row is not always its own first hit: equal vectors come in any order.
        is_self = others == np.arange(start, start + len(piece))[:, None]
        is_self[~is_self.any(axis=1), -1] = True
        cosines[start : start + len(piece)] = found[~is_self].reshape(-1, k)
        positions[start : start + len(piece)] = others[~is_self].reshape(-1, k)
    return np.where(positions < 0, np.float32(-1), cosines), positions


def nearest_of(queries: Floats, vectors: Floats, k: int, seed: int = 0) -> tuple[Floats, Positions]:
    """The `k` rows nearest to each query, of other rows.

    Args:
        queries, vectors: see `neighbour_index`.
        k: at most the number of rows.

    Returns:
        See `nearest_others`.
    """
    index = neighbour_index(vectors, seed)
    found = [index.search(piece, k) for _, piece in pieces(queries)]
    if not found:
        return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
    positions = np.concatenate([others for _, others in found]).astype(np.int64)
    cosines = np.concatenate([scores for scores, _ in found])
    return np.where(positions < 0, np.float32(-1), cosines), positions
