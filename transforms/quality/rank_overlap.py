"""How much two rankings have in common, without labels."""

from __future__ import annotations

from collections.abc import Sequence

PERSISTENCE = 0.9
"""p of rank-biased overlap: the first ten ranks have 86% of the weight."""


def overlap(first: Sequence[str], second: Sequence[str], k: int) -> float:
    """The share of the first `k` that both have; of the shorter list where one has fewer.

    >>> overlap(["a", "b"], ["b", "c"], 2)
    0.5
    """
    depth = min(k, max(len(first), len(second)))
    return len(set(first[:k]) & set(second[:k])) / depth if depth else 1.0


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], p: float = PERSISTENCE) -> float:
    """Rank-biased overlap, extrapolated, from 0 to 1: Webber, Moffat and Zobel, A similarity measure for indefinite
    rankings, ACM TOIS 28(4), 2010, equation 23, to the depth of the shorter list.

    >>> rank_biased_overlap(["a", "b"], ["a", "b"]), rank_biased_overlap(["a"], ["b"])
    (1.0, 0.0)
    """
    depth = min(len(first), len(second))
    if not depth:
        return float(len(first) == len(second))
    left: set[str] = set()
    right: set[str] = set()
    total, weight, agreed = 0.0, 1.0, 0.0
    for at in range(depth):
        left.add(first[at])
        right.add(second[at])
        weight *= p
        agreed = len(left & right) / (at + 1)
        total += agreed * weight
    return round(agreed * weight + (1 - p) / p * total, 12)
