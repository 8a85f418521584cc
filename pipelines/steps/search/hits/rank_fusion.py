"""Reciprocal rank fusion: one list of hits from searches of several vectors, whose scores can't be compared.

Cormack, Clarke and Büttcher, SIGIR 2009: a row's score is the sum of 1 / (60 + its rank) over the lists that have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

METRIC = "RRF"
"""What stands for a metric in a result; a larger score is nearer."""
_OFFSET = 60
DEPTH = 100
"""Rows of each list, at least."""


def fused(lists: Sequence[Sequence[dict[str, Any]]], k: int, key: str = "id") -> list[dict[str, Any]]:
    """The `k` best rows of several lists. Rows with the same score keep the order of the first list that has them.

    Args:
        lists: rows of each search, best first, each with its `id`.
        key: `id`; or `item_id`, where each list has one row of an item: the first list that has the item tells its row.

    >>> one, other = [{"id": "a"}, {"id": "b"}], [{"id": "b"}, {"id": "c"}]
    >>> [row["id"] for row in fused([one, other], 2)]
    ['b', 'a']
    """
    scores: dict[str, float] = {}
    rows: dict[str, dict[str, Any]] = {}
    for hits in lists:
        for rank, hit in enumerate(hits, 1):
            scores[hit[key]] = scores.get(hit[key], 0.0) + 1 / (_OFFSET + rank)
            rows.setdefault(hit[key], hit)
    best = sorted(scores, key=lambda row: -scores[row])[:k]
    return [{**rows[row], "score": round(scores[row], 6)} for row in best]
