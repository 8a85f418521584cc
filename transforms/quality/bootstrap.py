"""Intervals of means over queries by bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.

For tests of retrieval: Sakai, Evaluating evaluation metrics based on the bootstrap, SIGIR 2006.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
RESAMPLES = 4_000
NUMBERS_AT_ONCE = 4_000_000


class Interval(NamedTuple):
    """A mean with its 95% interval.

    Attributes:
        low, high: None of a single value, which says nothing of others.
    """

    value: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        """With four decimals."""
        return {
            name: None if one is None else round(one, 4)
            for name, one in zip(("value", "low", "high"), self, strict=True)
        }


def resampled_means(values: Numbers, seed: int = 0, resamples: int = RESAMPLES) -> Numbers:
    """Means of samples, drawn with replacement, as large as the values: float64[resamples, columns].

    Args:
        values: float64[n, columns].
    """
    random = np.random.default_rng(seed)
    step = max(1, NUMBERS_AT_ONCE // max(1, values.size))
    found = []
    for start in range(0, resamples, step):
        drawn = random.integers(len(values), size=(min(step, resamples - start), len(values)))
        found.append(values[drawn].mean(axis=1))
    return np.concatenate(found)


def intervals(values: Numbers, seed: int = 0) -> list[Interval]:
    """The mean of each column of float64[n, columns], with its 95% interval by the percentiles of the bootstrap."""
    means = values.mean(axis=0)
    if len(values) < 2:
        return [Interval(float(one), None, None) for one in means]
    low, high = np.percentile(resampled_means(values, seed), (2.5, 97.5), axis=0)
    return [Interval(*map(float, one)) for one in zip(means, low, high, strict=True)]
