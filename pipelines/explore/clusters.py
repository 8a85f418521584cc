"""`vecbeam explore clusters`: rows in groups of similar ones, with names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.joined_table import joined_table
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.cluster_names import folders_of, names_by_terms, names_by_value
from transforms.explore.live_rows import MOST_ROWS, Sample
from transforms.explore.row_clusters import Clusters, cluster_rows
from transforms.explore.row_labels import RowLabels, row_labels

SHOWN_VALUES = 30
"""Values of a field that the page's figure shows, the most common ones."""


def clusters(
    config: Config,
    *,
    n: int | None = None,
    field: str = "",
    vector: str = "",
    sample: int = MOST_ROWS,
    seed: int = 0,
    served: bool = False,
) -> Finding:
    """The rows of the current snapshot in clusters, by k-means over normalised vectors.

    A cluster of texts is named by its characteristic terms; one of media by the most common value of `field`, or folder
    of their files.

    Args:
        n: how many; None chooses by silhouette on a sample.
        field: a column that the clusters are compared with.
        vector: which dense vector, by default the first one.
        sample: most rows that are clustered, drawn by `seed`.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding with all rows, by cluster, those nearest to the centre first. Figures: sizes by name; with `field` the
        adjusted Rand index (Hubert and Arabie, 1985) and the normalised mutual information.

    Raises:
        ConfigurationError: fewer than 2 clusters, or an unknown column.
        CheckpointError: if there is no snapshot, or it has no row.
    """
    if n is not None and n < 2:
        raise ConfigurationError(f"-n: {n} is not a number of clusters", "for example -n 8, or leave -n out")
    rows = current_rows(config, served=served)
    name = rows.vector_named(vector)
    if field:
        rows.check_columns([field], "--field")
    seen = rows.sample(name, [field] if field else [], most=sample, seed=seed)
    if n is not None and n > len(seen):
        few = "leave -n out" if len(seen) < 2 else f"choose at most {len(seen)}"
        raise ConfigurationError(f"-n: {n} clusters of {len(seen)} rows", few)
    found = cluster_rows(seen.normalised, n, seed)
    labels = row_labels(seen.rows, field) if field else None
    names = _names(seen, found, labels)
    figures: dict[str, Any] = {
        "clusters": len(found.sizes),
        "sizes": {f"{at} {one}".strip(): size for at, (one, size) in enumerate(zip(names, found.sizes, strict=True))},
    }
    if found.silhouettes:
        figures["silhouettes"] = {str(count): value for count, value in found.silhouettes.items()}
    notes = []
    if n is not None and len(found.sizes) < n:
        notes.append(f"the rows have {len(found.sizes)} different vectors, so there are fewer clusters than {n}")
    if labels is not None:
        figures |= _agreement(found, labels)
        if without := int((~labels.has_value).sum()):
            notes.append(f"{without:,} rows have no value of {field}, and are left out of the agreement")
    title = f"Clusters of {len(seen):,} rows" + (f", compared with {field}" if field else "")
    return Finding(
        title,
        basis_of(rows, seen, name),
        figures,
        _table(seen, found, names),
        notes,
        plots=lambda: _plots(found, names, labels, field),
    )


def _names(seen: Sample, found: Clusters, labels: RowLabels | None) -> list[str]:
    """Names of the clusters, each one different."""
    count = len(found.sizes)
    names = [""] * count
    columns = seen.rows.column_names
    if "text" in columns:
        texts = [one or "" for one in seen.rows.column("text").to_pylist()]
        names = names_by_terms(texts, found.codes, count)
    if "uri" in columns and not all(names):
        values = folders_of(seen.rows.column("uri").to_pylist())
        if labels is not None:
            values = labels.named(labels.codes).to_pylist()
        others = names_by_value(values, found.codes, found.distances, count)
        names = [name or other for name, other in zip(names, others, strict=True)]
    return names


def _agreement(found: Clusters, labels: RowLabels) -> dict[str, Any]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    known = labels.has_value
    codes, truth = found.codes[known], labels.codes[known]
    if not len(codes):
        return {"values": 0}
    return {
        "values": len(labels.names),
        "adjusted_rand": round(float(adjusted_rand_score(truth, codes)), 4),
        "mutual_information": round(float(normalized_mutual_info_score(truth, codes)), 4),
    }


def _table(seen: Sample, found: Clusters, names: list[str]) -> pa.Table:
    order = np.lexsort((found.distances, found.codes))
    codes = found.codes[order]
    table = pa.table(
        {
            "cluster": codes,
            "name": pa.array([names[code] for code in codes.tolist()], pa.string()),
            "distance": found.distances[order].astype(np.float64),
        }
    )
    return joined_table(table, seen.rows.take(pa.array(order)))


def _plots(found: Clusters, names: list[str], labels: RowLabels | None, field: str) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go

    shown = [f"{at} {name}".strip() for at, name in enumerate(names)]
    bars = go.Figure(go.Bar(x=found.sizes, y=shown, orientation="h", marker_color="#0b5cad"))
    bars.update_layout(xaxis_title="rows", yaxis={"autorange": "reversed"}, height=max(320, 28 * len(shown)))
    figures = [("Sizes", bars)]
    if labels is not None and labels.names:
        counts = np.zeros((len(shown), len(labels.names)), np.int64)
        known = labels.has_value
        np.add.at(counts, (found.codes[known], labels.codes[known]), 1)
        common = np.argsort(-counts.sum(axis=0), kind="stable")[:SHOWN_VALUES]
        heat = go.Figure(
            go.Heatmap(z=counts[:, common], x=[labels.names[at] for at in common], y=shown, colorscale="Blues")
        )
        heat.update_layout(yaxis={"autorange": "reversed"}, height=max(400, 28 * len(shown)))
        figures.append((f"Rows by cluster and {field}", heat))
    return figures
