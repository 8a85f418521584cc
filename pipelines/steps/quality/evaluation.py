"""Rankings against their truth: measures of each query, means with intervals, by slice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.steps.quality.ranked import Ranked
from schemas.errors import ConfigurationError
from transforms.quality.bootstrap import intervals
from transforms.quality.judged_queries import JudgedQueries
from transforms.quality.retrieval_measures import FIRST, MEASURES, measure


@dataclass(frozen=True)
class Evaluation:
    """The measures of some rankings.

    Attributes:
        seed: of the bootstrap.
    """

    judged: JudgedQueries
    ranked: Ranked
    seed: int = 0

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """The measures of each query, float64[queries, measures], in the order of `MEASURES`."""
        truth = {one.id: self.judged.truth[one.id] for one in self.judged.queries}
        return measure(truth, self.ranked.items)

    @property
    def first(self) -> NDArray[np.float64]:
        """nDCG@10 of each query."""
        found: NDArray[np.float64] = self.scores[:, list(MEASURES).index(FIRST)]
        return found

    def means(self) -> dict[str, Any]:
        """The means with their 95% intervals, by measure."""
        found = intervals(self.scores, self.seed)
        return {name: one.as_json() for name, one in zip(MEASURES, found, strict=True)}

    def slices(self) -> pa.Table | None:
        """The means of each slice of the queries; None if no query has one."""
        names = [one.slice for one in self.judged.queries]
        if not any(names):
            return None
        rows = []
        for name in sorted(set(names)):
            of = np.array([one == name for one in names])
            row: dict[str, Any] = {"slice": name or "(none)", "queries": int(of.sum())}
            for measured, one in zip(MEASURES, intervals(self.scores[of], self.seed), strict=True):
                row[measured] = one.value
                if measured == FIRST:
                    row |= {"low": one.low, "high": one.high}
            rows.append(row)
        return pa.Table.from_pylist(rows)

    def queries(self) -> pa.Table:
        """Each query with its measures and the ranks of its relevant items, the worst first."""
        rows = []
        for one, scores in zip(self.judged.queries, self.scores.tolist(), strict=True):
            places = {item: rank for rank, item in enumerate(self.ranked.items.get(one.id, ()), 1)}
            relevant = [item for item, grade in self.judged.truth[one.id].items() if grade]
            ranks = sorted(places[item] for item in relevant if item in places)
            rows.append(
                {
                    "query": one.id,
                    "slice": one.slice,
                    **dict(zip(MEASURES, scores, strict=True)),
                    "relevant": len(relevant),
                    "ranks": ranks,
                    "content": one.content,
                    "first": next(iter(places), None),
                }
            )
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        table = table.sort_by([(name, "ascending") for name in (FIRST, "recall_at_100", "mrr")])
        return table if any(one.slice for one in self.judged.queries) else table.drop_columns(["slice"])


_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("slice", pa.string()),
        *((name, pa.float64()) for name in MEASURES),
        ("relevant", pa.int64()),
        ("ranks", pa.list_(pa.int64())),
        ("content", pa.string()),
        ("first", pa.string()),
    ]
)


def check_items(judged: JudgedQueries, tables: Iterable[pa.Table], truth: str, *, served: bool = False) -> list[str]:
    """A note on relevant items that the rows do not have: they can't be found.

    Args:
        tables: have the column item_id.
        truth: names the truth in messages.
        served: the rows are those that are served, and the corpus may have others.

    Raises:
        ConfigurationError: if the rows have none of the items.
    """
    left = judged.items
    total = len(left)
    for table in tables:
        left -= set(table.column("item_id").unique().to_pylist())
    some = ", ".join(sorted(left)[:3])
    where = "what is served" if served else "the corpus"
    if len(left) == total:
        raise ConfigurationError(
            f"{truth}: {where} has none of its {total:,} relevant items, for example {some}",
            "name the truth of this corpus; its item ids are the `item_id` of hits",
        )
    if not left:
        return []
    return [f"{len(left):,} of {total:,} relevant items are not in {where} and count as not found, the first: {some}"]
