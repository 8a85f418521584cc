"""`vecbeam explore outliers`: rows that are unusually far from their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.collection.current_rows import current_rows, rows_before
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.joined_table import joined_table
from pipelines.steps.results.options import check_choice
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.label_confidence import SMALLEST_LABEL, label_confidence
from transforms.explore.live_rows import MOST_ROWS, Sample
from transforms.explore.number_rows import Doubles, NumberScale, numbers_of
from transforms.explore.outlier_scores import Measured, of_all, of_groups, of_new
from transforms.explore.row_labels import row_labels

ABOVE = {"distance": 3.5, "density": 3.5, "label": 0.9}
"""Least score of an outlier by what is measured."""
K = 10


def outliers(
    config: Config,
    *,
    k: int = K,
    by: str = "distance",
    above: float | None = None,
    group: str = "",
    new: bool = False,
    numbers: str | Sequence[str] = (),
    vector: str = "",
    sample: int = MOST_ROWS,
    seed: int = 0,
    served: bool = False,
) -> Finding:
    """Rows of the current snapshot whose distance to their k-th nearest row is unusual.

    Args:
        k: which neighbour, from 1.
        by: "distance" to the k-th neighbour; "density", the local outlier factor; or "label", which finds rows whose
            value of `group` does not fit: likely mislabelled ones.
        above: least score of an outlier: robust standard deviations above the median, by default 3.5; of "label" how
            little the value fits, from 0 to 1, by default 0.9.
        group: a column; rows are compared with those of the same value.
        new: judges only rows that the snapshot before does not have, against the rows that it has.
        numbers: columns of numbers that are compared instead of a vector, as `NumberScale` scales them; rows without
            one of them are left out.
        vector: which dense vector, by default the first one.
        sample: most rows that are compared, drawn by `seed`.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding with one row for each outlier, the farthest first: score, distance, which row it is, and with `group`
        its value and that of its nearest rows.

    Raises:
        ConfigurationError: for a value that an option does not take, or an unknown column.
        CheckpointError: if there is no snapshot, it has no row, or `new` and there is no earlier one.
    """
    if k < 1:
        raise ConfigurationError(f"-k: {k} is not a number of neighbours", f"for example -k {K}")
    check_choice("--by", by, tuple(ABOVE))
    above = ABOVE[by] if above is None else above
    if not 0 < above < (1 if by == "label" else np.inf):
        between = "between 0 and 1" if by == "label" else "above 0"
        raise ConfigurationError(f"--above: {above} is not a score {between}", f"for example --above {ABOVE[by]}")
    if by == "label" and not group:
        raise ConfigurationError("--by label judges the values of a field, and --group is missing", "add --group FIELD")
    if new and (by != "distance" or group):
        raise ConfigurationError(
            "--new measures distances to all earlier rows, so it goes with neither --group nor another --by",
            "leave one of them out",
        )
    columns = [numbers] if isinstance(numbers, str) else list(numbers)
    if columns and vector:
        raise ConfigurationError("--number and --vector are both given", "leave one of the two out")
    rows = current_rows(config, served=served)
    name = "" if columns else rows.vector_named(vector)
    rows.check_columns(columns, "--number")
    if group:
        rows.check_columns([group], "--group")
    earlier: Sample | None = None
    among = None
    basis: dict[str, Any] = {}
    if new:
        before, among = rows_before(config, rows)
        earlier = before.sample(name, columns, most=sample, seed=seed)
        basis = {"earlier_snapshot": before.snapshot.id, "earlier_rows": len(earlier)}
    seen = rows.sample(name, [*([group] if group else []), *columns], most=sample, seed=seed, among=among)
    basis = basis_of(rows, seen, name) | basis
    notes = []
    if columns:
        basis["numbers"] = columns
        whole = len(seen)
        seen, earlier = _of_numbers(seen, earlier, columns)
        if whole > len(seen):
            notes.append(f"{whole - len(seen):,} rows have no number in one of the columns, and are left out")
    labels = row_labels(seen.rows, group) if group else None
    if earlier is not None:
        measured = of_new(seen.normalised, earlier.normalised, k, seed, logarithms=bool(columns))
    elif labels is None:
        measured = of_all(seen.normalised, k, by, seed, logarithms=bool(columns))
    elif by == "label":
        measured = label_confidence(seen.normalised, labels, seed)
    else:
        measured = of_groups(seen.normalised, labels, k, by, seed, logarithms=bool(columns))
    table = _table(seen, measured, above)
    judged = int(measured.judged.sum())
    figures: dict[str, Any] = {
        **({} if by == "label" else {"k": k}),
        "by": by,
        "above": above,
        "judged": judged,
        "outliers": table.num_rows,
        "share": round(table.num_rows / max(1, judged), 6),
    }
    what = "new rows" if new else "rows"
    if judged < len(seen):
        least = SMALLEST_LABEL if by == "label" else k + 2
        of_group = f" with the same {group}, or no value of it" if group else ""
        if by == "label":
            of_group += ", or no other value that enough rows have"
        notes.append(f"{len(seen) - judged:,} {what} were not judged: fewer than {least} rows{of_group}")
    title = f"Outliers among {len(seen):,} {what}" + (f", by {group}" if group else "")
    return Finding(title, basis, figures, table, notes, plots=lambda: _plots(measured, above))


def _of_numbers(seen: Sample, earlier: Sample | None, columns: Sequence[str]) -> tuple[Sample, Sample | None]:
    """Rows with their numbers as vectors, without those that miss one; on the scale of the earlier rows."""
    rows, numbers = _with_all(seen, columns)
    before, usual = (None, numbers) if earlier is None else _with_all(earlier, columns)
    if not len(usual):
        raise ConfigurationError(f"--number: no row has a number in all of {', '.join(columns)}", "name other columns")
    scale = NumberScale.of(usual)
    rows = replace(rows, vectors=scale.vectors(numbers))
    return rows, None if before is None else replace(before, vectors=scale.vectors(usual))


def _with_all(sample: Sample, columns: Sequence[str]) -> tuple[Sample, Doubles]:
    """The rows that have a finite number in each column, and these numbers."""
    numbers = numbers_of(sample.rows, columns, "--number")
    at = np.flatnonzero(np.isfinite(numbers).all(axis=1))
    return sample.taken(at), numbers[at]


def _table(seen: Sample, measured: Measured, above: float) -> pa.Table:
    at = np.flatnonzero(measured.judged & (measured.scores >= above))
    at = at[np.argsort(-measured.scores[at], kind="stable")]
    table = pa.table({"score": measured.scores[at], measured.measure: measured.values[at]})
    if measured.nearest_group is not None:
        table = table.append_column("nearest_group", measured.nearest_group.take(pa.array(at)))
    return joined_table(table, seen.rows.take(pa.array(at)))


def _plots(measured: Measured, above: float) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go

    scores = measured.scores[measured.judged]
    counts, borders = np.histogram(scores, bins=min(100, max(10, len(scores) // 20)))
    figure = go.Figure(go.Bar(x=(borders[1:] + borders[:-1]) / 2, y=counts, marker_color="#0b5cad"))
    figure.update_layout(xaxis_title="score", yaxis_title="rows", bargap=0)
    figure.add_vline(x=above, line_dash="dash")
    return [("Scores of all rows", figure)]
