"""`vecbeam explore map`: all rows as points of a plane, near ones near each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.joined_table import joined_table
from pipelines.steps.results.options import check_choice
from schemas.config import Config
from transforms.explore.live_rows import Floats, Sample
from transforms.explore.plane import by_pca, by_umap
from transforms.explore.row_labels import row_labels

POINTS = 100_000
COLOURED = 20
"""Values of a field that have a colour of their own, the most common ones."""
HOVER_CHARACTERS = 100


def map_rows(
    config: Config,
    *,
    by: str = "pca",
    color: str = "",
    vector: str = "",
    sample: int = POINTS,
    seed: int = 0,
    served: bool = False,
) -> Finding:
    """The rows of the current snapshot as points of a plane.

    Args:
        by: "pca", the two principal components of the normalised vectors; or "umap", which keeps neighbourhoods.
        color: a column that colours the points.
        vector: which dense vector, by default the first one.
        sample: most rows that are shown, drawn by `seed`.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding with x and y of each row, in the order of the snapshot.

    Raises:
        ConfigurationError: another word, an unknown column, or too few rows for UMAP.
        CheckpointError: if there is no snapshot, or it has no row.
        MissingExtraError: if a library is not installed.
    """
    check_choice("--by", by, ("pca", "umap"))
    rows = current_rows(config, served=served)
    name = rows.vector_named(vector)
    if color:
        rows.check_columns([color], "--color")
    seen = rows.sample(name, [color] if color else [], most=sample, seed=seed)
    plane = (by_umap if by == "umap" else by_pca)(seen.normalised, seed)
    points = plane.points
    figures: dict[str, Any] = {"by": by, "points": len(seen)}
    notes = []
    if plane.explained is not None:
        figures["explained"] = plane.explained
        notes.append("explained is the share of the variance that the two components keep")
    table = joined_table(
        pa.table({"x": points[:, 0].astype(np.float64), "y": points[:, 1].astype(np.float64)}), seen.rows
    )
    title = f"Map of {len(seen):,} rows" + (f", coloured by {color}" if color else "")
    return Finding(title, basis_of(rows, seen, name), figures, table, notes, plots=lambda: _plots(seen, points, color))


def _plots(seen: Sample, points: Floats, color: str) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    figure = go.Figure()
    hover = np.asarray(_hover(seen), object)
    places = np.round(points, 4)
    size = 6 if len(seen) < 5_000 else 3
    if color and _has_scale(seen.rows.column(color)):
        values = pc.cast(seen.rows.column(color), pa.float64()).to_numpy()
        marker = {"size": size, "color": values, "colorscale": "Viridis", "showscale": True}
        figure.add_trace(_points(places, hover, "", marker))
    elif color:
        labels = row_labels(seen.rows, color)
        counts = np.bincount(labels.codes[labels.has_value], minlength=len(labels.names))
        common = np.argsort(-counts, kind="stable")[:COLOURED]
        others = ~np.isin(labels.codes, common)
        if others.any():
            figure.add_trace(_points(places[others], hover[others], "others", {"size": size, "color": "#b0b7c0"}))
        for place, code in enumerate(common.tolist()):
            here = labels.codes == code
            marker = {"size": size, "color": qualitative.Dark24[place]}
            figure.add_trace(_points(places[here], hover[here], _safe(labels.names[code]), marker))
    else:
        figure.add_trace(_points(places, hover, "", {"size": size, "color": "#0b5cad"}))
    figure.update_layout(
        height=760,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        dragmode="pan",  # the page lets the wheel zoom then
        legend={"itemsizing": "constant"},
        xaxis={"visible": False},
        yaxis={"visible": False, "scaleanchor": "x"},
    )
    return [("Map", figure)]


def _has_scale(values: pa.ChunkedArray) -> bool:
    """Whether values are coloured by a scale: numbers, if they are more than have colours of their own."""
    if pa.types.is_integer(values.type):
        return bool(pc.count_distinct(values).as_py() > COLOURED)
    return bool(pa.types.is_floating(values.type))


def _points(places: Floats, hover: Any, name: str, marker: dict[str, Any]) -> Any:
    import plotly.graph_objects as go

    return go.Scattergl(
        x=places[:, 0],
        y=places[:, 1],
        mode="markers",
        name=name,
        showlegend=bool(name),
        marker=marker,
        text=hover.tolist(),
        hoverinfo="text",
    )


def _hover(seen: Sample) -> list[str]:
    """Id and start of the text of each row."""
    ids = seen.rows.column("id").to_pylist()
    texts = [""] * len(ids)
    for column in [one for one in ("text", "uri") if one in seen.rows.column_names]:
        texts = [text or other or "" for text, other in zip(texts, seen.rows.column(column).to_pylist(), strict=True)]
    return [f"{_safe(one)}<br>{_safe(text)}" for one, text in zip(ids, texts, strict=True)]


def _safe(text: str) -> str:
    """A text without markup: plotly shows some tags of labels as markup."""
    import html

    line = " ".join(text[: 2 * HOVER_CHARACTERS].split())
    return html.escape(line if len(line) <= HOVER_CHARACTERS else line[: HOVER_CHARACTERS - 1] + "…", quote=False)
