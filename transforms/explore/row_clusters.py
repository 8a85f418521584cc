"""Rows in clusters: mini-batch k-means over normalised vectors (Sculley, "Web-scale k-means clustering", WWW 2010)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.support.extras import need

SILHOUETTE_ROWS = 2_000
"""Rows of the sample that the number of clusters is chosen on."""
CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50)
"""Numbers of clusters that are tried."""
SMALLEST_MEAN = 10
"""Rows that a cluster of the sample has on average, at least: of fewer, silhouettes are noise."""


@dataclass(frozen=True)
class Clusters:
    """Rows in clusters, numbered from the largest to the smallest.

    Attributes:
        codes: int64[n], the cluster of each row.
        distances: float32[n], Euclidean, of each normalised row to the centre of its cluster.
        sizes: rows of each cluster.
        silhouettes: by number of clusters that was tried, the mean silhouette of the sample, from -1 to 1.
    """

    codes: NDArray[np.int64]
    distances: Floats
    sizes: list[int]
    silhouettes: dict[int, float]


def cluster_rows(vectors: Floats, count: int | None = None, seed: int = 0) -> Clusters:
    """Rows in clusters.

    Args:
        vectors: float32[n, dimensions], normalised.
        count: how many; None chooses the number of `CANDIDATES` with the largest mean silhouette (Rousseeuw, 1987, by
            cosine) on a sample of `SILHOUETTE_ROWS` rows.
        seed: of the sample and of the centres.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    need("explore", "clusters", "sklearn")
    different = len(np.unique(vectors, axis=0)) if len(vectors) <= max(CANDIDATES) * SMALLEST_MEAN else len(vectors)
    silhouettes: dict[int, float] = {}
    if count is None:
        silhouettes = _silhouettes(vectors, different, seed)
        count = max(silhouettes, key=lambda one: silhouettes[one], default=1)
    model = _fitted(vectors, min(count, different), seed)
    codes = np.asarray(model.predict(vectors), np.int64)
    sizes = np.bincount(codes, minlength=model.n_clusters)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    rank = np.full(len(sizes), -1, np.int64)
    rank[order] = np.arange(len(order))
    distances = np.linalg.norm(vectors - model.cluster_centers_[codes], axis=1)
    return Clusters(rank[codes], np.asarray(distances, np.float32), sizes[order].tolist(), silhouettes)


def _fitted(vectors: Floats, count: int, seed: int) -> Any:
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(count, random_state=seed, n_init=5, batch_size=2048).fit(vectors)


def _silhouettes(vectors: Floats, different: int, seed: int) -> dict[int, float]:
    from sklearn.metrics import silhouette_score

    rows = min(len(vectors), SILHOUETTE_ROWS)
    some = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), rows, replace=False))]
    found: dict[int, float] = {}
    for count in CANDIDATES:
        if count * SMALLEST_MEAN > rows or count > different:
            break
        codes = _fitted(some, count, seed).labels_
        if 1 < len(np.unique(codes)) < rows:
            found[count] = round(float(silhouette_score(some, codes, metric="cosine")), 4)
    return found
