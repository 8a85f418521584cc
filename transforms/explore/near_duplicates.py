"""Rows whose vectors are nearly the same, in groups.

An index finds the pairs: exact for few rows, inverted lists (faiss' IndexIVFFlat) for many. Two rows are in a group if
a chain of such pairs connects them, so that the ends of a long chain can be less similar than the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.explore.neighbour_search import Positions, neighbour_index, pieces
from transforms.support.extras import need

ROWS_AT_ONCE = 128
"""Rows whose pairs are held at a time: all rows may be near each of them."""
COMPARED_AT_ONCE = 1024
"""Rows of which copies are held while equal ones are looked for."""


@dataclass(frozen=True)
class Groups:
    """Groups of rows.

    Attributes:
        labels: the group of each row, int64[n]; -1 for a row without a near duplicate. Groups are numbered by their
            first row.
        nearest: similarity of each row to the nearest other row of its group, float32[n]; 0 without one.
    """

    labels: NDArray[np.int64]
    nearest: Floats

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0


def near_duplicates(vectors: Floats, above: float, seed: int = 0) -> Groups:
    """Groups of rows that have a cosine of at least `above` to another row of the group.

    Holds the pairs of `ROWS_AT_ONCE` rows at a time, and compares equal rows once, so that neither time nor memory
    grows with the square of a group.

    Args:
        vectors: float32[n, dimensions], each of length 1, or 0 throughout: such a row is like no other.
        above: from 0 to 1.
        seed: of the inverted lists.

    Raises:
        MissingExtraError: if faiss or scikit-learn is not installed.
    """
    need("explore", "near duplicates", "faiss", "scipy")
    first, of_row = _different(vectors)
    labels, nearest = _connected(vectors[first] if len(first) < len(vectors) else vectors, above, seed)
    labels, nearest = labels[of_row], nearest[of_row]
    nearest = np.where(np.bincount(of_row, minlength=1)[of_row] > 1, np.float32(1), nearest)
    sizes = np.bincount(labels, minlength=1)
    in_group = sizes[labels] > 1
    names, starts = np.unique(labels[in_group], return_index=True)
    order = np.full(len(sizes), -1, np.int64)
    order[names[np.argsort(starts)]] = np.arange(len(names))
    return Groups(np.where(in_group, order[labels], -1), nearest)


def _different(vectors: Floats) -> tuple[Positions, Positions]:
    """The first row of each different vector, and which of these each row has; rows of zeros are never equal."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    weights = np.random.default_rng(0).integers(1 << 63, size=vectors.shape[1], dtype=np.uint64)
    sums = np.empty(len(vectors), np.uint64)
    for start, piece in pieces(vectors, COMPARED_AT_ONCE):
        sums[start : start + len(piece)] = piece.view(np.uint32).astype(np.uint64) @ weights
    _, first, of_row = np.unique(sums, return_index=True, return_inverse=True)
    like = first[of_row]
    # Rows with one sum are nearly always equal, but not always: each is compared with the first of them.
    for start, piece in pieces(vectors, COMPARED_AT_ONCE):
        here = like[start : start + len(piece)]
        rows = np.flatnonzero(here != np.arange(start, start + len(piece)))
        some = piece[rows]
        equal = (some.view(np.uint32) == vectors[here[rows]].view(np.uint32)).all(axis=1) & some.any(axis=1)
        here[rows[~equal]] = start + rows[~equal]
    return np.unique(like, return_inverse=True)


def _connected(vectors: Floats, above: float, seed: int) -> tuple[Positions, Floats]:
    """Which rows pairs connect, as equal numbers below n, and the cosine of each row to the nearest other one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows = len(vectors)
    index = neighbour_index(vectors, seed)
    labels, nearest = np.arange(rows, dtype=np.int64), np.zeros(rows, np.float32)
    # faiss keeps what is over the threshold, and a pair that is exactly on it counts here.
    threshold = float(np.nextafter(np.float32(above), np.float32(-1)))
    for start, piece in pieces(vectors, ROWS_AT_ONCE):
        limits, scores, others = index.range_search(piece, threshold)
        limits = limits.astype(np.int64)
        own = start + np.repeat(np.arange(len(piece)), np.diff(limits))
        scores = np.where(own == others, np.float32(0), scores)
        has_some = np.diff(limits) > 0
        nearest[start : start + len(piece)][has_some] = np.maximum.reduceat(scores, limits[:-1][has_some])
        first, second = labels[own], labels[others]
        joins = first != second
        if joins.any():
            graph = coo_matrix((np.ones(int(joins.sum()), np.int8), (first[joins], second[joins])), shape=(rows, rows))
            labels = connected_components(graph, directed=False)[1].astype(np.int64)[labels]
    return labels, nearest
