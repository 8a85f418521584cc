"""Several configurations of one corpus in one table: answers, size, speed and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.run.report_store import reports
from pipelines.steps.quality.configured_rows import ConfiguredRows
from pipelines.steps.quality.evaluation import Evaluation
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.milvus import index_bytes, index_words
from transforms.quality.paired_test import compare

ENOUGH_ROWS = 100
"""Rows that a run has to embed to tell a speed."""


def check_same_corpus(configurations: Mapping[str, ConfiguredRows]) -> None:
    """Raises unless all configurations hold the same items.

    Raises:
        ConfigurationError: with the number of items that one of them alone has.
    """
    names = list(configurations)
    for name in names[1:]:
        if different := different_items(configurations[names[0]], configurations[name]):
            raise ConfigurationError(
                f"-c: {names[0]} and {name} are over different corpora: {different}",
                "compare configurations of one corpus, each after vecbeam backfill or sync",
            )


def different_items(first: ConfiguredRows, second: ConfiguredRows) -> str:
    """How many items only one of two configurations holds, in words; "" if they hold the same items."""
    here, there = first.item_hashes(), second.item_hashes()
    alone = len(np.setdiff1d(here, there)), len(np.setdiff1d(there, here))
    if not any(alone):
        return ""
    first_alone = f"{alone[0]:,} items of {len(here):,} are in the first alone"
    return f"{first_alone}, {alone[1]:,} of {len(there):,} in the second alone"


def table_of(
    configurations: Mapping[str, ConfiguredRows], evaluations: Sequence[Evaluation], seed: int = 0
) -> pa.Table:
    """One row for each configuration; differences are to the first one."""
    found = []
    for (name, opened), evaluation in zip(configurations.items(), evaluations, strict=True):
        means = evaluation.means()
        compared = compare(evaluations[0].first, evaluation.first, seed)
        column = opened.column
        speed, usd = _speed(opened.config)
        size = index_bytes(column.index_type, column.index_parameters, len(opened.rows), column.dimensions)
        found.append(
            {
                "configuration": name,
                "ndcg_at_10": means["ndcg_at_10"]["value"],
                "difference": None if evaluation is evaluations[0] else compared.difference.value,
                "low": None if evaluation is evaluations[0] else compared.difference.low,
                "high": None if evaluation is evaluations[0] else compared.difference.high,
                "won": compared.won,
                "lost": compared.lost,
                **{measure: means[measure]["value"] for measure in ("recall_at_10", "recall_at_100", "mrr")},
                "dimensions": column.dimensions,
                "rows": len(opened.rows),
                "index_mb_estimated": size / 1e6,
                "rows_per_second": speed,
                "usd_per_million_rows": usd,
                "index": index_words(column.index_type, column.metric, column.index_parameters),
                "model": opened.config.vectors[opened.name].model,
            }
        )
    return pa.Table.from_pylist(found)


def queries_of(names: Sequence[str], evaluations: Sequence[Evaluation]) -> pa.Table:
    """Each query with its nDCG@10 under each configuration, those that differ most first."""
    scores = np.stack([one.first for one in evaluations], axis=1)
    order = np.argsort(scores.min(axis=1) - scores.max(axis=1), kind="stable")
    queries = [evaluations[0].judged.queries[at] for at in order]
    columns: dict[str, Any] = {"query": [one.id for one in queries]}
    columns |= {name: scores[order, at] for at, name in enumerate(names)}
    return pa.table(columns | {"content": [one.content for one in queries]})


def _speed(config: Config) -> tuple[float | None, float | None]:
    """Rows embedded per second, and US dollars for a million of them, by the last run that embedded many."""
    for report in reports(config):
        rows = report.chunks.embedded
        if rows < ENOUGH_ROWS or not report.seconds.embed:
            continue
        speed = rows / report.seconds.embed
        usd = None if report.usd is None else report.usd / rows * 1e6
        if usd is None and config.runner.cost is not None:
            usd = config.runner.cost.usd_per_hour / 3600 / speed * 1e6
        return speed, usd
    return None, None
