"""How often a threshold takes two things for one, or one for two: the error rates of verification (ISO/IEC 19795-1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.support.extras import need


class MatchRates(NamedTuple):
    """Error rates of pairs that are labelled as the same or different.

    Attributes:
        false_match: share of the different pairs at or above the threshold.
        false_non_match: share of the same pairs below it.
        equal_error: both rates at the threshold where they are nearest to each other: their mean.
        equal_at: that threshold.
    """

    false_match: float
    false_non_match: float
    equal_error: float
    equal_at: float


def match_rates(cosines: NDArray[np.float64], same: NDArray[np.bool_], above: float) -> MatchRates:
    """The error rates of a threshold.

    Args:
        cosines: float64[n], of each pair.
        same: bool[n], whether it is of the same thing; some are, and some are not.
        above: the threshold.

    Raises:
        MissingExtraError: if scikit-learn is not installed.

    >>> match_rates(np.array([0.9, 0.5, 0.6, 0.1]), np.array([True, True, False, False]), 0.55)[:2]
    (0.5, 0.5)
    """
    need("explore", "--pairs", "sklearn")
    from sklearn.metrics import roc_curve

    matches = cosines >= above
    wrong, right, thresholds = roc_curve(same, cosines)
    at = int(np.abs(wrong - (1 - right)).argmin())
    return MatchRates(
        float(matches[~same].mean()),
        float((~matches[same]).mean()),
        float((wrong[at] + 1 - right[at]) / 2),
        float(min(thresholds[at], 1.0)),
    )
