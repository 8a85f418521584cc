"""Rows to labels by the nearest vector: of the label's text (zero-shot), or of the mean of examples (few-shot).

The mean of the examples' normalised vectors is the prototype of a label (Snell, Swersky and Zemel, "Prototypical
networks for few-shot learning", 2017; Rocchio's classifier).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.support.extras import need

Codes = NDArray[np.int64]


class Classified(NamedTuple):
    """Rows with labels.

    Attributes:
        codes: int64[n], the label of each row.
        scores: float32[n], cosine to it.
        margins: float32[n], how much larger it is than that of the next label.
    """

    codes: Codes
    scores: Floats
    margins: Floats


class Agreement(NamedTuple):
    """Labels compared with the truth.

    Attributes:
        accuracy: share of rows with the right label.
        largest: share of the most common label: what always naming it would reach.
        confusion: int64[labels, labels], true ones by rows and found ones by columns.
    """

    accuracy: float
    largest: float
    confusion: Codes


def prototypes(vectors: Floats, codes: Codes, count: int) -> Floats:
    """The mean of the vectors of each label, float32[count, dimensions].

    Args:
        vectors: float32[n, dimensions], normalised.
        codes: int64[n], the label of each; each label has at least one.
    """
    sums = np.zeros((count, vectors.shape[1]), np.float32)
    np.add.at(sums, codes, vectors)
    return np.asarray(sums / np.bincount(codes, minlength=count)[:, None], np.float32)


def classify(vectors: Floats, labels: Floats) -> Classified:
    """The label with the largest cosine to each row, the first of equal ones.

    Args:
        vectors: float32[n, dimensions], normalised.
        labels: float32[labels, dimensions], at least two; of any length.
    """
    lengths = np.linalg.norm(labels, axis=1, keepdims=True)
    cosines = vectors @ (labels / np.where(lengths == 0, 1, lengths)).T
    codes = cosines.argmax(axis=1)
    best = np.asarray(np.sort(cosines, axis=1), np.float32)
    return Classified(codes.astype(np.int64), best[:, -1], best[:, -1] - best[:, -2])


def agreement(found: Codes, truth: Codes, labels: Sequence[str]) -> Agreement:
    """Accuracy and confusion matrix, by scikit-learn.

    Args:
        found, truth: int64[n], positions in `labels`; at least one row.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    need("explore", "labels", "sklearn")
    from sklearn.metrics import accuracy_score, confusion_matrix

    confusion = np.asarray(confusion_matrix(truth, found, labels=np.arange(len(labels))), np.int64)
    largest = float(np.bincount(truth).max() / len(truth))
    return Agreement(float(accuracy_score(truth, found)), largest, confusion)
