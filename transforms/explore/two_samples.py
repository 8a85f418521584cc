"""Whether two samples of vectors are of one distribution.

Three measures: how far the means are apart; the maximum mean discrepancy with a Gaussian kernel and a permutation test
(Gretton, Borgwardt, Rasch, Schölkopf and Smola, "A kernel two-sample test", JMLR 2012: equation 3, the median
heuristic of section 8); and the area under the curve (AUC) of a classifier that tells the samples apart (Lopez-Paz
and Oquab, "Revisiting classifier two-sample tests", ICLR 2017), with the interval of Hanley and McNeil (Radiology,
1982).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.support.extras import need

Doubles = NDArray[np.float64]

FEWEST = 20
"""Vectors of a sample, at least: fewer are too few to tell."""
KERNEL_ROWS = 500
"""Most vectors of a sample that the permutation test compares."""
PERMUTATIONS = 999
CLASSIFIED_ROWS = 2_000
"""Most vectors of a sample that the classifier sees."""
FOLDS = 5
NORMAL_95 = 1.959964


class Discrepancy(NamedTuple):
    """The maximum mean discrepancy.

    Attributes:
        squared: the unbiased estimate, which may be below 0.
        p_value: share of permutations with one as large, from 1 / (permutations + 1) to 1.
    """

    squared: float
    p_value: float


@dataclass(frozen=True)
class Separation:
    """How well a classifier tells two samples apart.

    Attributes:
        auc: from 0.5, not at all, to 1; chance may bring it below 0.5.
        low, high: its 95% interval.
        scores: float64[n], of vectors of the second sample: how probable it is that they are of it, by a model that has
            not seen them.
        positions: int64[n], which vectors these are.
    """

    auc: float
    low: float
    high: float
    scores: Doubles
    positions: NDArray[np.int64]


def mean_distance(first: Floats, second: Floats) -> float:
    """The Euclidean distance of the means."""
    return float(np.linalg.norm(first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)))


def discrepancy(first: Floats, second: Floats, seed: int = 0) -> Discrepancy:
    """The maximum mean discrepancy of two samples, and how probable it is if they are of one distribution.

    Args:
        first, second: float32[n, dimensions], at least two each; of more than `KERNEL_ROWS`, some are drawn.
    """
    random = np.random.default_rng(seed)
    one, two = (_some(sample, KERNEL_ROWS, random)[0] for sample in (first, second))
    both = np.concatenate([one, two]).astype(np.float64)
    squares = (both**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * both @ both.T, 0)
    width = float(np.median(distances[np.triu_indices(len(both), 1)]))
    if width < 1e-12:  # most vectors are equal
        width = float(distances.mean())
    if width < 1e-12:
        return Discrepancy(0.0, 1.0)
    kernel = np.exp(-distances / (2 * width))
    np.fill_diagonal(kernel, 0)
    is_first = np.zeros((PERMUTATIONS + 1, len(both)))
    is_first[0, : len(one)] = 1
    for at in range(1, PERMUTATIONS + 1):
        is_first[at, random.choice(len(both), len(one), replace=False)] = 1
    count, others, whole = len(one), len(two), kernel.sum()
    of_first = is_first @ kernel
    within = (of_first * is_first).sum(axis=1)
    across = of_first.sum(axis=1) - within
    within_others = whole - within - 2 * across
    found = within / (count * (count - 1)) + within_others / (others * (others - 1)) - 2 * across / (count * others)
    # Rounding must not let a permutation that is the same split count as smaller.
    as_large = int((found[1:] >= found[0] - 1e-12).sum())
    return Discrepancy(float(found[0]), (1 + as_large) / (PERMUTATIONS + 1))


def separation(first: Floats, second: Floats, seed: int = 0) -> Separation:
    """How well logistic regression, cross-validated, tells the second sample from the first.

    Args:
        first, second: float32[n, dimensions], at least `FOLDS` each; of more than `CLASSIFIED_ROWS`, some are drawn.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    need("explore", "drift", "sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    random = np.random.default_rng(seed)
    one, _ = _some(first, CLASSIFIED_ROWS, random)
    two, positions = _some(second, CLASSIFIED_ROWS, random)
    both = np.concatenate([one, two])
    is_second = np.concatenate([np.zeros(len(one), int), np.ones(len(two), int)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=200, class_weight="balanced")
    probable = cross_val_predict(model, both, is_second, cv=folds, method="predict_proba")[:, 1]
    auc = float(roc_auc_score(is_second, probable))
    error = _auc_error(auc, len(one), len(two))
    low, high = max(0.0, auc - NORMAL_95 * error), min(1.0, auc + NORMAL_95 * error)
    return Separation(auc, low, high, np.asarray(probable[len(one) :], np.float64), positions)


def _auc_error(auc: float, first: int, second: int) -> float:
    """The standard error of an AUC; at 1 that of the next smaller value that these samples can have."""
    at = min(auc, 1 - 0.5 / (first * second))
    one, two = at / (2 - at), 2 * at**2 / (1 + at)
    variance = at * (1 - at) + (second - 1) * (one - at**2) + (first - 1) * (two - at**2)
    return float(np.sqrt(max(0.0, variance) / (first * second)))


def _some(sample: Floats, most: int, random: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    positions = np.arange(len(sample), dtype=np.int64)
    if len(sample) > most:
        positions = np.sort(random.choice(len(sample), most, replace=False)).astype(np.int64)
    return sample[positions], positions
