"""Measures of rankings, by ir-measures, which computes them with trec_eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from transforms.quality.judged_queries import Grades
from transforms.support.extras import need

MEASURES = {"ndcg_at_10": "nDCG@10", "recall_at_10": "R@10", "recall_at_100": "R@100", "mrr": "RR"}
"""Names in results, and those of ir-measures."""
FIRST = "ndcg_at_10"


def check_measures(what: str) -> None:
    """Raises MissingExtraError unless ir-measures is installed.

    Args:
        what: needs it.
    """
    need("explore", what, "ir_measures", "pytrec_eval")


def measure(truth: Mapping[str, Grades], rankings: Mapping[str, Sequence[str]]) -> NDArray[np.float64]:
    """The measures of each query: float64[queries, measures], queries in the order of `truth`.

    Args:
        truth: grades by item, by query.
        rankings: items, best first, by query. A query without one counts as 0.
    """
    check_measures("to measure rankings")
    import ir_measures

    measures = [ir_measures.parse_measure(name) for name in MEASURES.values()]
    # trec_eval orders by score and breaks ties by name: scores of the ranks keep the order.
    run = {name: {item: float(-rank) for rank, item in enumerate(items)} for name, items in rankings.items() if items}
    rows = {name: row for row, name in enumerate(truth)}
    columns = {one: column for column, one in enumerate(measures)}
    found = np.zeros((len(rows), len(measures)))
    for metric in ir_measures.iter_calc(measures, truth, run):
        found[rows[metric.query_id], columns[metric.measure]] = metric.value
    return found
