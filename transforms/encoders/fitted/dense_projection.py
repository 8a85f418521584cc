"""Weights of terms to dense vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoders.fitted.term_reader import Terms
from transforms.support.vectors import dense_array


def projected(
    vectorizer: Any, components: NDArray[np.float32], *, normalize: bool
) -> Callable[[Sequence[Terms]], pa.Array]:
    """Gives vectors of texts: their weights times the components' rows.

    Args:
        vectorizer: whose `transform` gives weights, scipy.sparse[texts, terms].
        components: float32[dimensions, terms].
        normalize: scales each vector to length 1.
    """
    columns = np.ascontiguousarray(components.T)

    def embed(documents: Sequence[Terms]) -> pa.Array:
        # scipy sums a row of the product term by term: other rows of the batch change nothing.
        vectors = np.asarray(vectorizer.transform(documents) @ columns, np.float32)
        return dense_array(scaled(vectors) if normalize else vectors)

    return embed


def scaled(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1; one of length 0 stays as it is."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    np.divide(vectors, lengths, out=vectors, where=lengths > 0, casting="same_kind")
    return vectors
