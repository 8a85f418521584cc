"""Canary vectors: what a model on a server makes of some fixed sentences, as a fact of its space.

The server's arithmetic may change a little from call to call, so they are compared by their cosine and are not part of
the fingerprint. A model that was changed under the same name is found by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

CANARIES = "canaries"
"""The fact's key: a list of vectors, each a list of numbers."""
LEAST_COSINE = 0.99
"""Of each canary, between two answers of the same model. Noise of 0.001 in each number gives at least 0.998."""


def canary_cosine(one: Any, other: Any) -> float:
    """The least cosine between the vectors of the same sentences; -1 if they can't be compared.

    >>> canary_cosine([[1.0, 0.0]], [[1.0, 0.0]])
    1.0
    """
    try:
        return min(_cosine(here, there) for here, there in zip(one, other, strict=True))
    except (TypeError, ValueError):
        return -1.0


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = math.fsum(here * there for here, there in zip(one, other, strict=True))
    lengths = math.hypot(*one) * math.hypot(*other)
    return product / lengths if lengths else -1.0


def without_canaries(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a fingerprint covers, at any depth."""
    return {
        key: without_canaries(value) if isinstance(value, Mapping) else value
        for key, value in facts.items()
        if key != CANARIES
    }
