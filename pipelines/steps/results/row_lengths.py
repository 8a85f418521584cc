"""How long rows are: tokens of texts, seconds of recordings and films; a chart and a table of the page of a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.steps.results.page_file import PageSection
from transforms.explore.live_rows import LiveRows

Counts = NDArray[np.int64]

BARS = 60
SHARES = {"half of the rows have at most": 0.5, "95% have at most": 0.95, "the longest has": 1.0}
TENTHS = 10
"""Seconds are counted in tenths."""


def length_section(rows: LiveRows) -> PageSection | None:
    """The section, from a column of all rows, read as a stream; None for images, and rows of several modalities."""
    names = rows.schema.names
    if "modality" in names:
        return None
    if "tokens" in names:
        counts, unit, scale = _counts(rows, ["tokens"], 1), "tokens", 1
    elif pa.types.is_floating(rows.schema.field("end").type if "end" in names else pa.null()):
        counts, unit, scale = _counts(rows, ["end", "start"], TENTHS), "seconds", TENTHS
    else:
        return None
    if counts[1:].sum() == 0:  # pictures among recordings, or nothing with a length
        return None
    return PageSection(
        "Lengths of the rows",
        _chart(counts, unit, scale),
        _table(counts, unit, scale),
        f"Of all rows of the run's snapshot, in {unit}.",
    )


def _counts(rows: LiveRows, columns: list[str], scale: int) -> Counts:
    """How many rows have each length, int64[longest + 1]."""
    counts = np.zeros(1, np.int64)
    for table in rows.tables(columns):
        first, *others = (table.column(name) for name in columns)
        values = pc.subtract(first, others[0]) if others else first
        lengths = np.rint(values.drop_null().to_numpy() * scale).astype(np.int64)
        here = np.bincount(lengths, minlength=len(counts))
        here[: len(counts)] += counts
        counts = here
    return counts


def _chart(counts: Counts, unit: str, scale: int) -> Any:
    import plotly.graph_objects as go

    width = -(-len(counts) // BARS)
    padded = np.pad(counts, (0, -len(counts) % width)).reshape(-1, width).sum(axis=1)
    begins = np.arange(len(padded)) * width / scale
    figure = go.Figure(go.Bar(x=begins + (width - 1) / 2 / scale, y=padded, marker_color="#0b5cad"))
    figure.update_layout(template="plotly_white", xaxis_title=unit, yaxis_title="rows", bargap=0, margin={"t": 24})
    return figure


def _table(counts: Counts, unit: str, scale: int) -> pa.Table:
    total = int(counts.sum())
    reached = np.cumsum(counts)
    facts = {"rows": float(total), f"mean {unit}": float((np.arange(len(counts)) * counts).sum() / total / scale)}
    for name, share in SHARES.items():
        facts[f"{name}, {unit}"] = int(np.searchsorted(reached, share * total)) / scale
    return pa.table({"of the rows": [*facts], "value": [f"{value:,.6g}" for value in facts.values()]})
