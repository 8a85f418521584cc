"""`vecbeam explore similar`: the similarity of some rows and texts, each with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.options import check_choice
from pipelines.steps.search.queries.text_vectors import text_vectors
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.live_rows import Floats, LiveRows
from transforms.explore.row_lookup import find_rows

METRICS = ("cosine", "l2", "ip")
MOST = 200
"""Most rows and texts of a matrix."""


def similar(
    config: Config,
    words: Sequence[str] = (),
    *,
    texts: Sequence[str] = (),
    metric: str = "cosine",
    vector: str = "",
    served: bool = False,
) -> Finding:
    """The similarity of each of some rows and texts with each other one.

    Args:
        words: each the id of a row, the id of an item (the mean of its rows' vectors at length 1), or else a text,
            which the configuration's encoder embeds as a query.
        texts: are texts even if a row has such an id.
        metric: "cosine"; "l2", the Euclidean distance; or "ip", the inner product.
        vector: which dense vector, by default the first one.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding whose table is the matrix: a row for each word, with its kind (row, item or text), and a column for
            each.

    Raises:
        ConfigurationError: fewer than two words, more than 200, the same one twice, another metric, or texts where the
            encoder embeds none.
        SpaceMismatchError: with texts, if the snapshot is of another space than the configuration's encoder.
        CheckpointError: if there is no snapshot, or it has no row.
    """
    check_choice("--metric", metric, METRICS)
    given = [*words, *texts]
    if not 2 <= len(given) <= MOST:
        raise ConfigurationError(
            f"{len(given)} rows and texts to compare, where 2 to {MOST} are expected",
            'write: vecbeam explore similar CONFIG ID ID "a text"',
        )
    for one in given:
        if given.count(one) > 1:
            raise ConfigurationError(f"{one!r} is named twice", "name each row or text once")
        if not one.strip():
            raise ConfigurationError("a text to compare is blank", "name a row or a text")
    rows = current_rows(config, served=served)
    name = rows.vector_named(vector)
    vectors, kinds = _vectors(config, rows, name, words, texts)
    matrix = _matrix(vectors, metric)
    columns: dict[str, Any] = {"word": given, "kind": kinds}
    for place, one in enumerate(given):
        columns[one if one not in columns else f"{one} "] = matrix[:, place].astype(np.float64)
    figures: dict[str, Any] = {"metric": metric, "compared": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}}
    pairs = [(first, second) for first in range(len(given)) for second in range(first + 1, len(given))]
    nearest = (min if metric == "l2" else max)(pairs, key=lambda pair: float(matrix[pair]))
    figures["nearest"] = [*(given[at] for at in nearest), round(float(matrix[nearest]), 4)]
    title = f"Similarity of {len(given)} rows and texts, {metric}"
    return Finding(
        title, basis_of(rows, None, name), figures, pa.table(columns), plots=lambda: _plots(given, matrix, metric)
    )


def _vectors(
    config: Config, rows: LiveRows, name: str, words: Sequence[str], texts: Sequence[str]
) -> tuple[Floats, list[str]]:
    looked = find_rows(rows, name, words)
    found = {word: looked.mean(word) for word in looked.places}
    ids = looked.sample.rows.column("id")
    kinds = {word: "row" if ids[int(at[0])].as_py() == word else "item" for word, at in looked.places.items()}
    others = [*(word for word in words if word not in found), *texts]
    made = text_vectors(config, rows, name, others) if others else np.zeros((0, 0), np.float32)
    by_text = dict(zip(others, made, strict=True))
    given = [*words, *texts]
    is_text = [place >= len(words) or word in by_text for place, word in enumerate(given)]
    vectors = [by_text[word] if text else found[word] for word, text in zip(given, is_text, strict=True)]
    return np.stack(vectors), ["text" if text else kinds[word] for word, text in zip(given, is_text, strict=True)]


def _matrix(vectors: Floats, metric: str) -> Floats:
    wide = vectors.astype(np.float64)
    if metric == "l2":
        return np.asarray(np.linalg.norm(wide[:, None] - wide[None], axis=2), np.float32)
    if metric == "cosine":
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
        wide = wide / np.where(lengths == 0, 1, lengths)
    return np.asarray(wide @ wide.T, np.float32)


def _plots(given: Sequence[str], matrix: Floats, metric: str) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go

    shown = [one if len(one) <= 40 else one[:39] + "…" for one in given]
    places = list(range(len(given)))
    figure = go.Figure(
        go.Heatmap(
            z=np.round(matrix, 4),
            x=places,
            y=places,
            colorscale="Blues",
            reversescale=metric == "l2",
            texttemplate="%{z:.2f}" if len(given) <= 20 else None,
        )
    )
    axis = {"tickvals": places, "ticktext": shown}
    figure.update_layout(xaxis=axis, yaxis={**axis, "autorange": "reversed"}, height=max(400, 60 + 32 * len(given)))
    return [("Each with each", figure)]
