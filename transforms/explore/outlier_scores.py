"""How far each row is from its neighbours, and whether that is unusual.

Two measures: the distance to the k-th nearest row (Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining
outliers from large data sets", SIGMOD 2000), and the local outlier factor, which compares the density around a row with
that around its neighbours (Breunig, Kriegel, Ng and Sander, "LOF: identifying density-based local outliers", SIGMOD
2000). Either becomes a score that does not depend on model and metric: the modified z-score, which is the distance from
the median in units of the median absolute deviation (Iglewicz and Hoaglin, "How to detect and handle outliers", 1993,
who call a value above 3.5 an outlier).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.explore.neighbour_search import nearest_of, nearest_others
from transforms.explore.row_labels import RowLabels

Doubles = NDArray[np.float64]

NORMAL_MEDIAN = 0.6745
"""Median absolute deviation of a normal distribution, in standard deviations."""
NORMAL_MEAN = 0.7979
"""Mean absolute deviation of a normal distribution, in standard deviations."""
SMALLEST = 1e-6
"""Cosine distances below it are rounding errors of float32."""


@dataclass(frozen=True)
class Measured:
    """How unusual each row is.

    Attributes:
        measure: what `values` are: distance, factor, or confidence.
        values, scores: float64[n]; NaN and 0 for rows that were not judged.
        judged: bool[n], whether there were enough rows to compare it with.
        nearest_group: the group that most of the nearest rows are of, text[n]; None without groups.
    """

    measure: str
    values: Doubles
    scores: Doubles
    judged: NDArray[np.bool_]
    nearest_group: pa.Array | None = None


def of_all(vectors: Floats, k: int, by: str = "distance", seed: int = 0, *, logarithms: bool = False) -> Measured:
    """All rows against each other.

    Args:
        vectors: float32[n, dimensions], each of length 1, or 0 throughout.
        by: "distance" or "density".
        logarithms: scores are those of the logarithms. In few dimensions, distances at the rim of an ordinary cluster
            are many times the median.
    """
    whole = RowLabels(np.zeros(len(vectors), np.int64), [""])
    return of_groups(vectors, whole, k, by, seed, logarithms=logarithms)


def of_groups(
    vectors: Floats, groups: RowLabels, k: int, by: str = "distance", seed: int = 0, *, logarithms: bool = False
) -> Measured:
    """Each row against the rows of its group; those of groups with fewer than k + 2 rows are not judged."""
    rows = len(vectors)
    values, scores, judged = np.full(rows, np.nan), np.zeros(rows), np.zeros(rows, bool)
    for code in range(len(groups.names)):
        here = np.flatnonzero(groups.codes == code)
        if len(here) < k + 2:
            continue
        measure = local_outlier_factors if by == "density" else kth_distances
        values[here] = measure(vectors[here], k, seed)
        scores[here] = modified_z_scores(_scored(values[here], logarithms=logarithms))
        judged[here] = True
    nearest = _nearest_groups(vectors, groups, k, seed) if len(groups.names) > 1 else None
    return Measured("factor" if by == "density" else "distance", values, scores, judged, nearest)


def of_new(queries: Floats, vectors: Floats, k: int, seed: int = 0, *, logarithms: bool = False) -> Measured:
    """Rows against earlier rows: unusual is what would be unusual among those.

    Args:
        queries: float32[n, dimensions], the rows.
        vectors: float32[m, dimensions], the earlier ones; nothing is judged where they are fewer than k + 2.
    """
    rows = len(queries)
    if len(vectors) < k + 2 or not rows:
        return Measured("distance", np.full(rows, np.nan), np.zeros(rows), np.zeros(rows, bool))
    usual = kth_distances(vectors, k, seed)
    values = kth_distances(vectors, k, seed, queries)
    scores = modified_z_scores(*(_scored(one, logarithms=logarithms) for one in (values, usual)))
    return Measured("distance", values, scores, np.ones(rows, bool))


def _scored(values: Doubles, *, logarithms: bool) -> Doubles:
    return np.log(np.maximum(values, SMALLEST)) if logarithms else values


def _nearest_groups(vectors: Floats, groups: RowLabels, k: int, seed: int) -> pa.Array:
    """The group that most of the k nearest rows are of; the nearer one of two that have as many."""
    _, positions = nearest_others(vectors, min(k, len(vectors) - 1), seed)
    return groups.named(_most_common(np.where(positions >= 0, groups.codes[positions], -1)))


def _most_common(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most common code of each row of codes int64[n, k], the first one of several; -1 counts for nothing."""
    weights = 1 + np.linspace(0.5, 0, codes.shape[1]) / codes.shape[1]
    found = np.empty(len(codes), np.int64)
    for row, of in enumerate(codes):
        there = of >= 0
        sums = np.bincount(of[there], weights[there], minlength=1)
        found[row] = int(sums.argmax()) if there.any() else -1
    return found


def kth_distances(vectors: Floats, k: int, seed: int = 0, queries: Floats | None = None) -> Doubles:
    """The cosine distance of each row to the k-th nearest other row, float64[n].

    Args:
        vectors: float32[n, dimensions], each of length 1, or 0 throughout.
        k: less than n.
        queries: rows that `vectors` does not have, to be measured instead of these.
    """
    found = nearest_others(vectors, k, seed) if queries is None else nearest_of(queries, vectors, k, seed)
    return distances_of(found[0][:, -1])


def local_outlier_factors(vectors: Floats, k: int, seed: int = 0) -> Doubles:
    """The local outlier factor of each row, float64[n]: about 1 within a cluster, more outside.

    Args:
        vectors, k: see `kth_distances`.
    """
    cosines, positions = nearest_others(vectors, k, seed)
    distances = distances_of(cosines)
    there = positions >= 0
    others = np.where(there, positions, 0)
    # The definitions 3 to 7 of the paper, over the neighbours that the index found.
    reached = np.maximum(distances, distances[:, -1][others])
    reach = np.maximum((reached * there).sum(axis=1) / np.maximum(1, there.sum(axis=1)), SMALLEST)
    density = 1 / reach
    around = (density[others] * there).sum(axis=1) / np.maximum(1, there.sum(axis=1))
    return np.asarray(around / density, np.float64)


def distances_of(cosines: Floats) -> Doubles:
    """Cosine distances, from 0 to 2."""
    found = 1 - cosines.astype(np.float64)
    return np.where(found < SMALLEST, 0.0, found)


def modified_z_scores(values: Doubles, of: Doubles | None = None) -> Doubles:
    """How far values are above the median, in robust standard deviations; 0 where all values are equal.

    Args:
        of: values that median and deviation are taken of; by default the same.

    >>> modified_z_scores(np.array([1.0, 2.0, 3.0, 4.0, 10.0])).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 4.72]
    """
    basis = values if of is None else of
    median = np.median(basis)
    away = np.abs(basis - median)
    scale = float(np.median(away)) / NORMAL_MEDIAN or float(away.mean()) / NORMAL_MEAN
    if not scale:
        scale = np.inf if of is None else SMALLEST
    return np.asarray((values - median) / scale, np.float64)
