"""How many neighbours of an item are the same in two spaces: what another model changes for searchers."""

from __future__ import annotations

import numpy as np

from transforms.explore.live_rows import Floats
from transforms.explore.neighbour_search import Positions, nearest_others


def neighbour_overlap(first: Floats, second: Floats, k: int, seed: int = 0) -> tuple[Floats, Positions, Positions]:
    """The share of the k nearest other items that both spaces have.

    Args:
        first, second: float32[n, dimensions of the space], normalised: the same items in the same order.
        k: less than n.

    Returns:
        The share of each item, float32[n], and its neighbours in both spaces, int64[n, k].
    """
    one, two = (nearest_others(vectors, k, seed)[1] for vectors in (first, second))
    common = (one[:, :, None] == two[:, None, :]) & (one >= 0)[:, :, None]
    return np.asarray(common.any(axis=2).mean(axis=1), np.float32), one, two
