"""Rows whose vectors are nearly the same, in groups.

An index finds the pairs: exact for few rows, inverted lists (faiss' IndexIVFFlat) for many. Two rows are in a group if
a chain of such pairs connects them, so that the ends of a long chain can be less similar than the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.explore.neighbour_search import Positions, neighbour_index, pieces
from transforms.support.extras import need

ROWS_AT_ONCE = 128
"""Rows whose pairs are held at a time: all rows may be near each of them."""


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
    labels, nearest = _connected(vectors[first], above, seed)
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
    known: dict[bytes, int] = {}
    first: list[int] = []
    of_row = np.empty(len(vectors), np.int64)
    for row, vector in enumerate(np.ascontiguousarray(vectors)):
        name = blake2b(vector.data, digest_size=16).digest() if vector.any() else row.to_bytes(8)
        place = known.setdefault(name, len(known))
        if place == len(first):
            first.append(row)
        of_row[row] = place
    return np.asarray(first, np.int64), of_row


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
