"""The recall of indexes by their parameters, as runs measured it: a chart and a table of the page of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.steps.results.page_file import PageSection
from schemas.run_report import Report

NOTE = (
    "Of a sample: with faiss, to choose an index. Of the collection: in Milvus. Unseen queries are not rows of the "
    "collection: what they find follows from rows that were left out of an index of a sample. nDCG@10 is that of the "
    "gate of the same run, by exact search."
)


def index_sections(report: Report, history: Sequence[Report]) -> Iterator[PageSection]:
    """The section, where a run measured an index.

    Args:
        history: other runs, of which what they measured in Milvus is shown.
    """
    rows = list(dict.fromkeys(_rows(report, history)))
    if rows:
        names = (
            "run",
            "measured on",
            "index",
            "search",
            "vector",
            "filter",
            "recall@10",
            "of unseen queries",
            "nDCG@10",
        )
        columns = [pa.array(values) for values in zip(*rows, strict=True)]
        empty = [at for at, values in enumerate(columns) if not any(values.to_pylist())]
        kept = [at for at in range(len(names)) if at not in empty]
        table = pa.table({names[at]: columns[at] for at in kept})
        yield PageSection("Recall@10 by index", _chart(report), table, NOTE)


def _rows(report: Report, history: Sequence[Report]) -> Iterator[tuple[Any, ...]]:
    for run in [report, *(one for one in history if one.run_id != report.run_id)]:
        quality = None if run.quality is None else run.quality.ndcg_at_10
        for one in run.measured_indexes:
            is_sample = one.of == "sample"
            if run is report or not is_sample:
                measured = f"{one.of}, {one.rows:,} rows"
                answers = None if is_sample or one.filter else quality
                words = (_words(one.type, one.parameters), _words("", one.search), one.vector, one.filter)
                yield (run.run_id, measured, *words, one.recall_at_10, one.unseen_at_10, answers)


def _chart(report: Report) -> Any:
    """Recall by the search parameter, a line for each index; None where no index has one."""
    import plotly.graph_objects as go

    lines: dict[str, dict[int, float]] = {}
    for one in report.measured_indexes:
        if len(one.search) == 1:
            [value] = one.search.values()
            said = f"{one.vector} {_words(one.type, one.parameters)}, {one.of}".strip()
            lines.setdefault(f"{said}, {one.filter}" if one.filter else said, {})[value] = one.recall_at_10
    if not lines:
        return None
    figure = go.Figure()
    for name, points in lines.items():
        values = sorted(points)
        figure.add_scatter(x=values, y=[points[value] for value in values], mode="lines+markers", name=name)
    of = " or ".join(sorted({name for one in report.measured_indexes if len(one.search) == 1 for name in one.search}))
    figure.update_layout(template="plotly_white", xaxis_title=of, yaxis_title="recall@10", showlegend=True)
    figure.update_xaxes(type="log")
    return figure


def _words(kind: str, parameters: Mapping[str, float]) -> str:
    return " ".join([*([kind] if kind else []), *(f"{name} {value:g}" for name, value in parameters.items())])
