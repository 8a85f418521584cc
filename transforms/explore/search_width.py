"""The narrowest search of an index that keeps what is wanted of it, found by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from schemas.milvus.indexes import SEARCH_PARAMETERS

NEARLY = 1.05
"""Costs this near to the least one are as good."""
CLOSE = 1.02
"""How near the found value is to the least one that keeps."""
LEAST_EF, MOST_EF = 10, 4096


def narrowest(
    kind: str, search: Mapping[str, int], lists: int, keeps: Callable[[dict[str, int]], bool]
) -> dict[str, int] | None:
    """The narrowest search parameters that keep what is wanted, to within 2%; None if none do.

    A wider search finds no less. It doubles a value until it keeps, or halves it until it does not, and then bisects.

    Args:
        kind: of the index.
        search: where to begin; empty for an index that reads every row.
        lists: of an IVF index, whose `nprobe` can't be more.
        keeps: whether some search parameters do.

    >>> narrowest("HNSW", {"ef": 32}, 1, lambda one: one["ef"] >= 180)
    {'ef': 181}
    >>> narrowest("IVF_FLAT", {"nprobe": 48}, 96, lambda one: one["nprobe"] >= 5)
    {'nprobe': 5}
    """
    if not search:
        return {} if keeps({}) else None
    [(name, value)] = search.items()
    least = LEAST_EF if name == "ef" else 1
    most = MOST_EF if name == "ef" else min(lists, SEARCH_PARAMETERS[kind][name][1])
    value = min(max(value, least), most)
    fails = least - 1
    while not keeps({name: value}):
        if value == most:
            return None
        fails, value = value, min(2 * value, most)
    while fails < least < value:
        half = max(least, value // 2)
        if keeps({name: half}):
            value = half
        else:
            fails = half
    while value > fails + 1 and value > CLOSE * fails:
        middle = min(max(round(math.sqrt(fails * value)), fails + 1), value - 1)
        if keeps({name: middle}):
            value = middle
        else:
            fails = middle
    return {name: value}
