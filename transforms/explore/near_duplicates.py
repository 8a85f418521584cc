"""Rows whose vectors are nearly the same, in groups.

An index finds the pairs: exact for few rows, inverted lists (faiss' IndexIVFFlat) for many. Two rows are in a group if
a chain of such pairs connects them, so that the ends of a long chain can be less similar than the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.explore.neighbour_search import neighbour_index, pieces
from transforms.support.extras import need


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

    Args:
        vectors: float32[n, dimensions], each of length 1, or 0 throughout: such a row is like no other.
        above: from 0 to 1.
        seed: of the inverted lists.

    Raises:
        MissingExtraError: if faiss or scikit-learn is not installed.
    """
    need("explore", "near duplicates", "faiss", "scipy")
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows = len(vectors)
    first, second, scores = _pairs(vectors, above, seed)
    nearest = np.zeros(rows, np.float32)
    np.maximum.at(nearest, first, scores)
    graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(rows, rows))
    _, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels, minlength=1)
    in_group = sizes[labels] > 1
    names, starts = np.unique(labels[in_group], return_index=True)
    order = np.full(len(sizes), -1, np.int64)
    order[names[np.argsort(starts)]] = np.arange(len(names))
    return Groups(np.where(in_group, order[labels], -1), nearest)


def _pairs(vectors: Floats, above: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Positions of both rows of each pair in both orders, and its cosine."""
    index = neighbour_index(vectors, seed)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats]] = []
    # faiss keeps what is over the threshold, and a pair that is exactly on it counts here.
    threshold = float(np.nextafter(np.float32(above), np.float32(-1)))
    for start, piece in pieces(vectors):
        limits, scores, others = index.range_search(piece, threshold)
        own = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
        is_pair = own != others
        found.append((own[is_pair], others[is_pair].astype(np.int64), scores[is_pair]))
    first, second, scores = (np.concatenate(one) for one in zip(*found, strict=True))
    return first, second, scores
