"""`vecbeam explore labels`: the label of each row, by texts of labels or by a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.results.finding import Finding, basis_of
from pipelines.steps.results.joined_table import joined_table
from pipelines.steps.results.labelled_examples import Example, label_texts, read_examples
from pipelines.steps.search.queries.text_vectors import text_vectors
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms.explore.classification import Agreement, Classified, Codes, agreement, classify, prototypes
from transforms.explore.live_rows import MOST_ROWS, Floats, LiveRows, Sample
from transforms.explore.row_labels import row_labels
from transforms.explore.row_lookup import find_rows


def labels(
    config: Config,
    labels: Sequence[str] = (),
    *,
    examples: str | Path | None = None,
    template: str = "",
    truth: str = "",
    vector: str = "",
    sample: int = MOST_ROWS,
    seed: int = 0,
    served: bool = False,
) -> Finding:
    """Gives each row of the current snapshot a label: the one whose vector has the largest cosine to its own.

    Args:
        labels: each a name, or name=text; the text's vector is the label's (zero-shot). The configuration's encoder
            embeds it as a query.
        examples: instead of `labels`, a JSONL file of {"id": ..., "label": ...}, of rows or items, or
            {"text": ..., "label": ...}; the mean of a label's examples is its vector (few-shot).
        template: of the texts, with "{}" where the label goes, for example "a photo of {}".
        truth: a column with the right label. Rows that are examples, or have another value, are not counted.
        vector: which dense vector, by default the first one.
        sample: most rows that are labelled, drawn by `seed`.
        served: looks at the snapshot that the served collection holds.

    Returns:
        A finding with the label, the cosine to it, and the margin to the next label of each row. With `truth` wrong
        ones come first, the most certain first; else the least certain ones. Figures: rows by label; with `truth` the
        accuracy, the share of the most common label, and the confusion matrix by true label.

    Raises:
        ConfigurationError: no labels or both kinds, one label, a repeated one, unknown ids, or a `truth` of which no
            row has one of the labels.
        SpaceMismatchError: with texts, if the snapshot is of another space than the configuration's encoder.
        CheckpointError: if there is no snapshot, or it has no row.
    """
    if bool(labels) == (examples is not None):
        raise ConfigurationError(
            "labels are named by --label or by --examples" + (", not by both" if labels else ""),
            "write --label a --label b, or --examples labelled.jsonl",
        )
    if template and examples is not None:
        raise ConfigurationError("--template goes with --label, not with --examples", "leave --template out")
    texts = label_texts(labels, template) if labels else {}
    known = read_examples(Path(examples)) if examples is not None else []
    rows = current_rows(config, served=served)
    name = rows.vector_named(vector)
    if truth:
        rows.check_columns([truth], "--truth")
    used: set[str] = set()
    if texts:
        names = list(texts)
        vectors = text_vectors(config, rows, name, list(texts.values()))
    else:
        names, vectors, used = _of_examples(config, rows, name, known)
    seen = rows.sample(name, [truth] if truth else [], most=sample, seed=seed)
    found = classify(seen.normalised, vectors)
    figures: dict[str, Any] = {
        "by": "texts" if texts else "examples",
        "labels": {one: int((found.codes == code).sum()) for code, one in enumerate(names)},
    }
    notes: list[str] = []
    right: Codes | None = None
    compared: Agreement | None = None
    if truth:
        right, counted = _truth(seen, truth, names, used)
        compared = agreement(found.codes[counted], right[counted], names)
        figures |= {
            "accuracy": round(compared.accuracy, 4),
            "most_common": round(compared.largest, 4),
            "counted": int(counted.sum()),
            "confusion": {
                one: {other: int(compared.confusion[a, b]) for b, other in enumerate(names) if compared.confusion[a, b]}
                for a, one in enumerate(names)
            },
        }
        if left := len(seen) - int(counted.sum()):
            notes.append(f"{left:,} rows are examples, or have another {truth} than one of the labels: not counted")
    table = _table(seen, found, names, right)
    title = f"Labels of {len(seen):,} rows" + (f", compared with {truth}" if truth else "")
    return Finding(
        title, basis_of(rows, seen, name), figures, table, notes, plots=lambda: _plots(found, names, compared)
    )


def _of_examples(
    config: Config, rows: LiveRows, name: str, known: Sequence[Example]
) -> tuple[list[str], Floats, set[str]]:
    """Names and vectors of labels, and the ids of the rows that are examples."""
    names = list(dict.fromkeys(one.label for one in known))
    by_id = [one for one in known if one.key == "id"]
    looked = find_rows(rows, name, [one.value for one in by_id])
    if unknown := [one.value for one in by_id if one.value not in looked.places]:
        raise ConfigurationError(
            f"--examples: {len(unknown)} of {len(by_id)} ids are of no row or item: {', '.join(unknown[:3])}",
            "correct these lines",
        )
    vectors = [looked.mean(one.value) for one in by_id]
    codes = [names.index(one.label) for one in by_id]
    used = set(looked.sample.rows.column("id").to_pylist())
    if by_text := [one for one in known if one.key == "text"]:
        vectors += list(text_vectors(config, rows, name, [one.value for one in by_text]))
        codes += [names.index(one.label) for one in by_text]
    matrix = np.stack(vectors)
    matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return names, prototypes(matrix, np.asarray(codes, np.int64), len(names)), used


def _truth(seen: Sample, truth: str, names: Sequence[str], used: set[str]) -> tuple[Codes, Any]:
    """The right label of each row, -1 for none of the labels; and which rows count."""
    values = row_labels(seen.rows, truth)
    place = {one: code for code, one in enumerate(names)}
    as_label = np.asarray([place.get(one, -1) for one in values.names] or [-1], np.int64)
    right = np.where(values.codes >= 0, as_label[values.codes], -1)
    is_example = np.asarray([one in used for one in seen.rows.column("id").to_pylist()], bool)
    counted = (right >= 0) & ~is_example
    if not counted.any():
        some = ", ".join(values.names[:5]) or "none"
        raise ConfigurationError(
            f"--truth: no row to be counted has one of the labels ({', '.join(names[:5])}) as its {truth}; the values "
            f"are {some}",
            "name labels as the field has them; --label VALUE=TEXT gives a value another text",
        )
    return right, counted


def _table(seen: Sample, found: Classified, names: Sequence[str], right: Codes | None) -> pa.Table:
    order = np.argsort(found.margins, kind="stable")
    facts: dict[str, Any] = {}
    if right is not None:
        wrong = (right >= 0) & (right != found.codes)
        order = np.lexsort((-found.margins, ~wrong))
        facts["right"] = pa.array(right == found.codes, mask=right < 0).take(pa.array(order))
    columns: dict[str, Any] = {
        "label": pa.array([names[code] for code in found.codes[order].tolist()], pa.string()),
        "score": found.scores[order].astype(np.float64),
        "margin": found.margins[order].astype(np.float64),
    }
    return joined_table(pa.table(facts | columns), seen.rows.take(pa.array(order)))


def _plots(found: Classified, names: Sequence[str], compared: Agreement | None) -> list[tuple[str, Any]]:
    import plotly.graph_objects as go

    shown = [one if len(one) <= 40 else one[:39] + "…" for one in names]
    if compared is None:
        counts = np.bincount(found.codes, minlength=len(names))
        bars = go.Figure(go.Bar(x=counts, y=shown, orientation="h", marker_color="#0b5cad"))
        bars.update_layout(xaxis_title="rows", yaxis={"autorange": "reversed"}, height=max(320, 28 * len(shown)))
        return [("Rows by label", bars)]
    heat = go.Figure(go.Heatmap(z=compared.confusion, x=shown, y=shown, colorscale="Blues"))
    heat.update_layout(
        xaxis_title="label", yaxis_title="truth", yaxis={"autorange": "reversed"}, height=max(400, 28 * len(shown))
    )
    return [("Rows by true label and label", heat)]
