"""An index with parameters that may be chosen, and what a search of it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """An index with parameters, as the sweep found it.

    Attributes:
        type: a value of `collection.index.type`.
        parameters: of the build.
        search: of a search.
        recall: recall@10 on the sample.
        cost: bytes that one search reads, for all rows.
        memory: bytes of the index, for all rows.
        keeps: whether recall and memory are within their limits.
        curve: value of the search parameter and recall, for each that was tried.
        costs: value of the search parameter and cost, also of wider searches than `search`.
    """

    type: str
    parameters: Mapping[str, int]
    search: Mapping[str, int]
    recall: float
    cost: int
    memory: int
    keeps: bool = field(default=False)
    curve: Sequence[tuple[int, float]] = field(default=())
    costs: Sequence[tuple[int, int]] = field(default=())

    def searched(self, search: Mapping[str, int]) -> Candidate:
        """The same index with other search parameters, and what a search then costs.

        Between two values that were counted the cost is interpolated; beyond them it grows as the value does.
        """
        if not search or search == self.search:
            return self
        [value], own = search.values(), max(1, *self.search.values())
        values, costs = np.array(self.costs or [(own, self.cost)], np.float64).T
        known = float(np.interp(value, values, costs))
        beyond = max(1.0, value / values[-1]) if self.costs else value / own
        return replace(self, search=dict(search), cost=round(known * beyond))

    def as_json(self) -> dict[str, Any]:
        """The candidate as plain values."""
        return asdict(self)


def joined(same: Sequence[Candidate], recall: float, memory: float) -> Candidate:
    """One index for all vectors: the widest search, the least recall, the sum of costs and memory."""
    widest = max(same, key=lambda one: tuple(one.search.values()))
    least, size = min(one.recall for one in same), sum(one.memory for one in same)
    return Candidate(
        widest.type,
        widest.parameters,
        widest.search,
        round(least, 4),
        sum(one.cost for one in same),
        size,
        least >= recall and size <= memory,
        _least_by_value([one.curve for one in same]),
        _sum_by_value([one.costs for one in same]),
    )


def _least_by_value(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[tuple[int, float], ...]:
    """The least recall of all vectors, for each value that all of them were searched with."""
    maps = [dict(curve) for curve in curves]
    values = [value for value in maps[0] if all(value in one for one in maps)]
    return tuple((value, round(min(one[value] for one in maps), 4)) for value in values)


def _sum_by_value(costs: Sequence[Sequence[tuple[int, int]]]) -> tuple[tuple[int, int], ...]:
    """The cost of a search of all vectors, for each value that was counted for all of them."""
    maps = [dict(one) for one in costs]
    return tuple((value, sum(one[value] for one in maps)) for value in maps[0] if all(value in one for one in maps))
