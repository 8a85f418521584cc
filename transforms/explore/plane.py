"""Vectors as points of a plane."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schemas.errors import ConfigurationError
from transforms.explore.live_rows import Floats
from transforms.support.extras import need

NEIGHBOURS = 15
"""Of each row, whose distances UMAP keeps."""
FEWEST = 4
"""Rows that UMAP places, at least."""


class Plane(NamedTuple):
    """Points of a plane.

    Attributes:
        points: float32[n, 2].
        explained: share of the variance that they keep, of PCA; None of UMAP, which keeps
            neighbourhoods, and of rows that are all equal.
    """

    points: Floats
    explained: float | None


def by_pca(vectors: Floats, seed: int = 0) -> Plane:
    """The two principal components, by scikit-learn.

    Args:
        vectors: float32[n, dimensions].

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    need("explore", "map", "sklearn")
    from sklearn.decomposition import PCA

    points = np.zeros((len(vectors), 2), np.float32)
    count = min(2, *vectors.shape)
    if len(vectors) < 2 or not vectors.std(axis=0).any():
        return Plane(points, None)
    model = PCA(count, random_state=seed).fit(vectors)
    points[:, :count] = model.transform(vectors)
    return Plane(points, round(float(model.explained_variance_ratio_.sum()), 4))


def by_umap(vectors: Floats, seed: int = 0) -> Plane:
    """UMAP (McInnes, Healy and Melville, 2018) by umap-learn, from the principal components; one thread, so repeatable.

    Args:
        vectors: float32[n, dimensions].

    Raises:
        ConfigurationError: for fewer than `FEWEST` rows.
        MissingExtraError: if umap-learn is not installed.
    """
    if len(vectors) < FEWEST:
        raise ConfigurationError(
            f"--by umap places at least {FEWEST} rows, and there are {len(vectors)}", "leave --by umap out"
        )
    need("explore", "--by umap", "umap")
    import umap

    points = by_pca(vectors, seed).points
    # UMAP's own scale of a start, and a little noise, without which equal points stay equal.
    noise = np.random.default_rng(seed).normal(0, 1e-4, points.shape)
    start = np.asarray(10 * points / (np.abs(points).max() or 1.0) + noise, np.float32)
    model = umap.UMAP(n_neighbors=min(NEIGHBOURS, len(vectors) - 1), init=start, random_state=seed, n_jobs=1)
    return Plane(np.asarray(model.fit_transform(vectors), np.float32), None)
