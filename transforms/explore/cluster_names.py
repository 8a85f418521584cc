"""Names of clusters: their characteristic terms, or what most of their files have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import Floats
from transforms.support.extras import need

TERMS = 4
MOST_TERMS = 50_000
"""Most different terms that are counted."""


def names_by_terms(texts: Sequence[str], codes: NDArray[np.int64], clusters: int) -> list[str]:
    """The terms with the largest class-based TF-IDF of each cluster.

    That is the root of a term's frequency in the cluster times log(1 + mean terms of a cluster / frequency of the
    term): Grootendorst, "BERTopic", 2022, equation 2, with the root of its `reduce_frequent_words`. Terms in many rows
    are left out, whatever the language: in more than 1.5 times the rows of a mean cluster, but at least 15% and at most
    50%.

    Args:
        texts: of the rows.
        codes: int64[n], the cluster of each row.

    Returns:
        A name for each cluster; "" where its texts have no term of their own.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    need("explore", "names of clusters", "scipy", "sklearn")
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    rows = len(texts)
    common = min(0.5, max(0.15, 1.5 / clusters)) if clusters > 1 else 1.0
    counter = CountVectorizer(token_pattern=r"(?u)\b[^\W\d_][^\W_]+\b", max_df=common, max_features=MOST_TERMS)
    try:
        counts = counter.fit_transform(texts)
    except ValueError:  # no term at all, or none but common ones
        return [""] * clusters
    terms = counter.get_feature_names_out()
    of_cluster = csr_matrix((np.ones(rows), (codes, np.arange(rows))), shape=(clusters, rows)) @ counts
    frequencies = np.asarray(of_cluster.sum(axis=0)).ravel()
    inverse = np.log1p(of_cluster.sum() / clusters / np.maximum(frequencies, 1))
    names = []
    for code in range(clusters):
        row = of_cluster.getrow(code)
        weights = np.sqrt(row.data) * inverse[row.indices]
        # A term once in a large cluster is chance.
        weights[row.data < min(2, row.data.max(initial=0))] = 0
        best = row.indices[np.lexsort((row.indices, -weights))[:TERMS]]
        names.append(", ".join(terms[at] for at in best))
    return names


def names_by_value(
    values: Sequence[str | None], codes: NDArray[np.int64], distances: Floats, clusters: int
) -> list[str]:
    """The most common value of each cluster with its share, for example "birds (80%)"; "" without values.

    Where all values of a cluster differ, it is like that of the row that is nearest to the centre.

    Args:
        distances: float32[n], of each row to the centre of its cluster.

    >>> names_by_value(["a", "a", "b", None, "c", "d"], np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 0, 0, 1, 0.5]), 3)
    ['a (67%)', '', 'like d']
    """
    names = []
    for code in range(clusters):
        here = np.flatnonzero(codes == code)
        found = [values[at] for at in here[np.argsort(distances[here], kind="stable")].tolist()]
        counted = Counter(one for one in found if one is not None).most_common(1)  # of equal ones the nearest
        name, count = counted[0] if counted else ("", 0)
        if count > 1:
            name = f"{name} ({count / len(found):.0%})"
        elif name and len(found) > 1:
            name = f"like {name}"
        names.append(name)
    return names


def folders_of(uris: Sequence[str | None]) -> list[str | None]:
    """The folder of each file, at the lowest level where they differ; where they never do, the file's name.

    >>> folders_of(["a/b/1.jpg", "a/c/2.jpg"]), folders_of(["b/all/1.jpg", "c/all/2.jpg"])
    (['b', 'c'], ['b', 'c'])
    >>> folders_of(["a/1.jpg", "a/2.jpg", None])
    ['1.jpg', '2.jpg', None]
    """
    paths = [None if uri is None else PurePosixPath(uri.split("#", 1)[0]) for uri in uris]
    known = [path for path in paths if path is not None]
    for level in range(min((len(path.parents) for path in known), default=0)):
        if len({path.parents[level].name for path in known}) > 1:
            return [None if path is None else path.parents[level].name for path in paths]
    return [None if path is None else path.name for path in paths]
