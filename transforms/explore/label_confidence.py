"""How well the label of each row fits its vector: which rows are likely mislabelled.

A logistic regression that has not seen the row says how probable its label is (self-confidence; Northcutt, Jiang and
Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021). It is divided by the mean
self-confidence of the rows of that label: labels that are hard to predict are low throughout.
"""

from __future__ import annotations

import numpy as np

from transforms.explore.live_rows import Floats
from transforms.explore.outlier_scores import Measured
from transforms.explore.row_labels import RowLabels
from transforms.support.extras import need

FOLDS = 5
SMALLEST_LABEL = 2 * FOLDS
"""Rows of a label that is judged, at least."""
TRAINING_ROWS = 20_000
"""Most rows that a model is fitted on."""


def label_confidence(vectors: Floats, labels: RowLabels, seed: int = 0) -> Measured:
    """How little the label of each row fits: 1 - self-confidence over the mean of the label, at least 0.

    Args:
        vectors: float32[n, dimensions], normalised.
        seed: of the folds.

    Returns:
        Rows of labels with fewer than `SMALLEST_LABEL` rows are not judged. `nearest_group` is the most probable label.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    need("explore", "judging labels", "sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    rows = len(vectors)
    sizes = np.bincount(labels.codes[labels.has_value], minlength=len(labels.names))
    known = np.flatnonzero(sizes >= SMALLEST_LABEL)
    values, scores, judged = np.full(rows, np.nan), np.zeros(rows), np.isin(labels.codes, known)
    best = np.full(rows, -1, np.int64)
    at = np.flatnonzero(judged)
    if len(known) < 2:
        return Measured("confidence", values, scores, np.zeros(rows, bool), labels.named(best))
    codes = labels.codes[at]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(at, codes):
        kept = train
        if len(train) > TRAINING_ROWS:
            kept = np.sort(np.random.default_rng(seed).choice(train, TRAINING_ROWS, replace=False))
        model = LogisticRegression(max_iter=200).fit(vectors[at[kept]], codes[kept])
        probable = model.predict_proba(vectors[at[test]])
        # A label may be in none of the rows that a fit draws: then it has no probability.
        of_label = np.zeros((len(test), len(labels.names)))
        of_label[:, model.classes_] = probable
        values[at[test]] = of_label[np.arange(len(test)), codes[test]]
        best[at[test]] = model.classes_[probable.argmax(axis=1)]
    usual = np.zeros(len(labels.names))
    usual[known] = [values[at[codes == code]].mean() for code in known]
    scores[at] = np.clip(1 - values[at] / np.maximum(usual[codes], 1e-12), 0, 1)
    scores[best == labels.codes] = 0  # another label has to be more probable
    return Measured("confidence", values, scores, judged, labels.named(best))
