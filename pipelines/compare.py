"""`vecbeam compare [OLD] [NEW]`: how the answers of two collections or configurations differ, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.quality.compared_sides import sides
from pipelines.steps.quality.configurations import different_items
from pipelines.steps.quality.configured_rows import ConfiguredRows
from pipelines.steps.results.finding import Finding
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.quality.bootstrap import intervals
from transforms.quality.exact_ranking import DEPTH
from transforms.quality.judged_queries import QUERIES, read_queries
from transforms.quality.rank_overlap import overlap, rank_biased_overlap


def compare(
    old: Config | str = "",
    new: Config | str = "",
    *,
    queries: str | Path,
    k: int = 10,
    vector: str = "",
    seed: int = 0,
    configs: Sequence[Config] = (),
) -> Finding:
    """Ranks the items of two collections, or of the newest snapshots of two configurations, for each query of a log.

    A collection is ranked by its own index, a configuration exactly.

    Args:
        old, new: configurations, or names of collections; see `pipelines.steps.quality.compared_sides.sides` for what
            is compared without names.
        queries: a file; see `transforms.quality.judged_queries.read_queries`.
        k: items of a list that are compared and shown.
        vector: by default the first dense one.
        seed: of the bootstrap.
        configs: for collections: the first one's Milvus has them, and the encoders of all may have made their vectors.

    Returns:
        A finding with one row for each query, the one whose answers moved most first: overlap of the first `k`,
        rank-biased overlap of the first 100, and both lists. Its table `lost` has the items that are among the first
        `k` of a query in `old`, and of none in `new`.

    Raises:
        ConfigurationError: for a wrong file or option, or a vector that is not dense.
        CheckpointError: if a configuration has no snapshot of its space, or it has no row.
        CollectionError: if there is no such collection, nothing is served, or Milvus does not answer.
        SpaceMismatchError: if no configuration's encoder made the vectors of a collection.
    """
    if not 1 <= k <= DEPTH:
        raise ConfigurationError(f"-k: {k} is not a number from 1 to {DEPTH}", "for example -k 10")
    if not queries:
        raise ConfigurationError(f"{QUERIES}: not given", f"name a file with a query on each line: {QUERIES} log.txt")
    asked = read_queries(str(queries))
    both = sides(old, new, configs, vector)
    before, after = (side.ranked(asked) for side in both)
    rows: list[dict[str, Any]] = []
    for one in asked:
        first, second = before.items.get(one.id, []), after.items.get(one.id, [])
        rows.append(
            {
                "query": one.id,
                "content": one.content,
                f"overlap_at_{k}": overlap(first, second, k),
                "rbo": rank_biased_overlap(first, second),
                "old": first[:k],
                "new": second[:k],
            }
        )
    rows.sort(key=lambda row: (row["rbo"], row[f"overlap_at_{k}"]))
    means = intervals(np.array([[row[f"overlap_at_{k}"], row["rbo"]] for row in rows]), seed)
    reached = [{item for row in rows for item in row[side]} for side in ("old", "new")]
    lost = sorted(reached[0] - reached[1])
    figures = {
        "queries": len(rows),
        f"overlap_at_{k}": means[0].as_json(),
        "rbo": means[1].as_json(),
        "same_order": sum(row["old"] == row["new"] for row in rows),
        "reached_before": len(reached[0]),
        "reached_now": len(reached[1]),
        "no_longer_reached": len(lost),
    }
    basis = {
        f"{name}_{what}": value
        for name, side in zip(("old", "new"), both, strict=True)
        for what, value in side.basis.items()
    }
    tables = {"lost": pa.table({"item_id": pa.array(lost, pa.string())})} if lost else {}
    notes = [f"old: {note}" for note in before.notes] + [f"new: {note}" for note in after.notes]
    first_side, second_side = both
    if isinstance(first_side, ConfiguredRows) and isinstance(second_side, ConfiguredRows):
        different = different_items(first_side, second_side)
        notes += [f"the configurations are over different corpora: {different}"] if different else []
    return Finding(
        f"Answers to {len(rows):,} queries compared", basis, figures, pa.Table.from_pylist(rows), notes, tables=tables
    )
