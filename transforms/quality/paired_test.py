"""Two systems on the same queries: how many each wins, and whether the difference is more than chance.

A paired bootstrap over queries: Sakai, Evaluating evaluation metrics based on the bootstrap, SIGIR 2006.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.quality.bootstrap import Interval, resampled_means

Numbers = NDArray[np.float64]
FEWEST = 10
"""Queries below which the bootstrap says nothing."""
SAME = 1e-9


class Verdict(StrEnum):
    PASSED = "passed"
    WORSE = "worse"
    TOO_FEW = "too few queries to tell"


class PairedTest(NamedTuple):
    """After minus before.

    Attributes:
        difference: the mean with its 95% interval, of which nothing is known with fewer than `FEWEST` queries.
        won, lost: queries that are better, or worse, after.
    """

    difference: Interval
    won: int
    lost: int

    def verdict(self, max_loss: float) -> Verdict:
        """Whether more than `max_loss` was lost.

        It is worse if the mean falls by more than that and the interval excludes 0; if only the mean does, the queries
        are too few to tell.
        """
        if -self.difference.value <= max_loss + SAME:
            return Verdict.PASSED
        high = self.difference.high
        return Verdict.WORSE if high is not None and high < 0 else Verdict.TOO_FEW


def compare(before: Numbers, after: Numbers, seed: int = 0) -> PairedTest:
    """Compares the scores of the same queries: float64[n] each, at least one.

    >>> compare(np.zeros(20), np.full(20, -0.5)).verdict(0.01)
    <Verdict.WORSE: 'worse'>
    """
    differences = after - before
    won, lost = int((differences > SAME).sum()), int((differences < -SAME).sum())
    mean = float(differences.mean())
    if len(differences) < FEWEST:
        return PairedTest(Interval(mean, None, None), won, lost)
    means = resampled_means(differences[:, None], seed)[:, 0]
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    return PairedTest(Interval(mean, low, high), won, lost)
