"""`vecbeam explore duplicates`: rows, or items, that are nearly the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.joined_table import joined_table
from pipelines.steps.results.labelled_pairs import LabelledPair, read_pairs
from pipelines.steps.results.options import check_choice
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.items_of import items_of
from transforms.explore.live_rows import MOST_ROWS, LiveRows, Sample
from transforms.explore.match_rates import match_rates
from transforms.explore.near_duplicates import Groups, near_duplicates
from transforms.explore.row_lookup import find_rows

ABOVE = 0.95


def duplicates(
    config: Config,
    *,
    above: float = ABOVE,
    by: str = "row",
    keep: str = "first",
    pairs: str | Path | None = None,
    vector: str = "",
    sample: int = MOST_ROWS,
    seed: int = 0,
    served: bool = False,
) -> Finding:
    """Groups of rows of the current snapshot whose vectors have a cosine of at least `above`.

    Args:
        by: "row", or "item", which compares the mean vectors of items.
        keep: "first" or "last", in the order of the corpus: the one of a group with `keep` true.
        pairs: a CSV file with the columns a, b (ids of rows or items) and same (1 or 0): measures how often the
            threshold `above` is wrong.
        vector: which dense vector, by default the first one.
        sample: most rows that are compared, drawn by `seed`.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding with one row for each near duplicate: group, keep, similarity to the nearest of its group, and which
        row it is. With `pairs`, figures have the rates of false matches and false non-matches, and the threshold at
        which both are equal.

    Raises:
        ConfigurationError: `above` is not between 0 and 1, another word, or the vector is not dense.
        CheckpointError: if there is no snapshot, or it has no row.
    """
    if not 0 < above <= 1:
        raise ConfigurationError(f"--above: {above} is not a cosine between 0 and 1", "for example --above 0.95")
    check_choice("--by", by, ("row", "item"))
    check_choice("--keep", keep, ("first", "last"))
    labelled = read_pairs(Path(pairs)) if pairs is not None else []
    rows = current_rows(config, served=served)
    name = rows.vector_named(vector)
    rates = _rates(rows, name, labelled, above) if labelled else {}
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
    figures |= rates
    notes = []
    if not seen.is_whole:
        notes.append("pairs outside the sample are not found: --sample takes more rows")
    without_length = int((~compared.vectors.any(axis=1)).sum())
    if without_length:
        notes.append(f"{without_length:,} {things} have a vector of zeros, and are compared with none")
    return Finding(f"Near duplicates among {len(compared):,} {things}", basis, figures, table, notes)


def _rates(rows: LiveRows, name: str, labelled: Sequence[LabelledPair], above: float) -> dict[str, Any]:
    ids = list(dict.fromkeys(one for pair in labelled for one in (pair.a, pair.b)))
    looked = find_rows(rows, name, ids)
    if unknown := [one for one in ids if one not in looked.places]:
        raise ConfigurationError(
            f"--pairs: {len(unknown)} of {len(ids)} ids are of no row or item: {', '.join(unknown[:3])}",
            "correct these lines",
        )
    vectors = np.stack([looked.mean(one) for one in ids]).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    at = {one: place for place, one in enumerate(ids)}
    first, second = vectors[[at[pair.a] for pair in labelled]], vectors[[at[pair.b] for pair in labelled]]
    found = match_rates((first * second).sum(axis=1), np.asarray([pair.same for pair in labelled], bool), above)
    return {
        "pairs": len(labelled),
        "false_match_rate": round(found.false_match, 6),
        "false_non_match_rate": round(found.false_non_match, 6),
        "equal_error_rate": round(found.equal_error, 6),
        "equal_error_above": round(found.equal_at, 4),
    }


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
