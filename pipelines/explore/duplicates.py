"""`vecbeam explore duplicates`: rows, or items, that are nearly the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.joined_table import joined_table
from pipelines.steps.results.options import check_choice
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.items_of import items_of
from transforms.explore.live_rows import MOST_ROWS, Sample
from transforms.explore.near_duplicates import Groups, near_duplicates

ABOVE = 0.95


def duplicates(
    config: Config,
    *,
    above: float = ABOVE,
    by: str = "row",
    keep: str = "first",
    vector: str = "",
    sample: int = MOST_ROWS,
    seed: int = 0,
    served: bool = False,
) -> Finding:
    """Groups of rows of the current snapshot whose vectors have a cosine of at least `above`.

    Args:
        by: "row", or "item", which compares the mean vectors of items.
        keep: "first" or "last", in the order of the corpus: the one of a group with `keep` true.
        vector: which dense vector, by default the first one.
        sample: most rows that are compared, drawn by `seed`.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding with one row for each near duplicate: group, keep, similarity to the nearest of its group, and which
        row it is.

    Raises:
        ConfigurationError: `above` is not between 0 and 1, another word, or the vector is not dense.
        CheckpointError: if there is no snapshot, or it has no row.
    """
    if not 0 < above <= 1:
        raise ConfigurationError(f"--above: {above} is not a cosine between 0 and 1", "for example --above 0.95")
    check_choice("--by", by, ("row", "item"))
    check_choice("--keep", keep, ("first", "last"))
    rows = current_rows(config, served=served)
    name = rows.vector_named(vector)
    seen = rows.sample(name, most=sample, seed=seed)
    basis = basis_of(rows, seen, name)
    compared = items_of(seen) if by == "item" else seen
    groups = near_duplicates(compared.normalised, above, seed)
    table = _table(compared, groups, keep)
    things = "items" if by == "item" else "rows"
    figures: dict[str, Any] = {
        "above": above,
        "groups": groups.count,
        f"duplicate_{things}": int((groups.labels >= 0).sum()),
        "removable": table.num_rows - groups.count,
        "share": round((table.num_rows - groups.count) / max(1, len(compared)), 6),
    }
    notes = []
    if not seen.is_whole:
        notes.append("pairs outside the sample are not found: --sample takes more rows")
    without_length = int((~compared.vectors.any(axis=1)).sum())
    if without_length:
        notes.append(f"{without_length:,} {things} have a vector of zeros, and are compared with none")
    return Finding(f"Near duplicates among {len(compared):,} {things}", basis, figures, table, notes)


def _table(compared: Sample, groups: Groups, keep: str) -> pa.Table:
    in_group = np.flatnonzero(groups.labels >= 0)
    order = in_group[np.argsort(groups.labels[in_group], kind="stable")]
    labels = groups.labels[order]
    changes = np.flatnonzero(np.diff(labels))
    kept = np.zeros(len(order), bool)
    if len(order):
        kept[np.append(0, changes + 1) if keep == "first" else np.append(changes, len(order) - 1)] = True
    facts = pa.table({"group": labels, "keep": kept, "similarity": groups.nearest[order].astype(np.float64)})
    return joined_table(facts, compared.rows.take(pa.array(order)))
