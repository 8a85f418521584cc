"""The report of a run as one HTML file: items as a flow, time, lengths, rejects, the gate, plan and fact, history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.run.report_text import deleted_words, result
from pipelines.steps.results.page_file import PageSection, write_page
from pipelines.steps.results.report_indexes import index_sections
from schemas.modality import shown_rate
from schemas.run_report import Report

KINDS = ("new", "changed", "moved", "unchanged", "rejected")
"""The kinds of items that add up to those read."""


def write_report_page(
    path: Path, report: Report, history: Sequence[Report], more: int = 0, lengths: PageSection | None = None
) -> None:
    """Writes a page of one run in one atomic step.

    Args:
        history: the runs to compare with, newest first.
        more: how many earlier runs there are.
        lengths: of the rows of the run's snapshot.

    Raises:
        ConfigurationError: for another suffix than .html, or a folder that does not exist.
        MissingExtraError: if the extra `explore` is not installed.
        StorageError: if it can't be written.
    """
    notes = [f"Warning: {warning}" for warning in report.warnings]
    if report.error is not None:
        notes.insert(0, f"{report.error.kind}: {report.error}")
    sections = [*_books(report), *_time(report), *([] if lengths is None else [lengths])]
    sections += [*_rejects(report), *_gate(report)]
    sections += [*index_sections(report, history), *_plan(report)]
    sections += _history(history, more)
    write_page(path, f"{report.name}: {report.command}", _basis(report), _figures(report), notes, sections)


def _basis(report: Report) -> dict[str, Any]:
    found = {
        "run": report.run_id,
        "model": report.model,
        "space": report.space,
        "snapshot": report.snapshot,
        "collection": report.collection,
        "engine": ", ".join(report.runtime.values()),
        "versions": report.versions,
    }
    return {name: value for name, value in found.items() if value}


def _figures(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {"result": result(report)}
    if report.reason:
        found["removed" if report.command == "gc" else "changed"] = report.reason
    items = report.items
    if items.read or items.deleted:
        found["items"] = f"{items.read:,} read" + (
            f"; {items.deleted:,} {deleted_words(report)}" if items.deleted else ""
        )
    chunks = [f"{count:,} {what}" for what, count in report.chunks.model_dump().items() if count]
    found["chunks"] = ", ".join(chunks)
    tokens = report.tokens
    if report.modality.unit == "tokens" and (tokens.embedded or tokens.dropped):
        found["tokens"] = f"{tokens.embedded:,} embedded, {tokens.padded:,} padding, {tokens.dropped:,} dropped"
    if report.sound is not None:
        found["sound"] = f"{report.sound.embedded:,.1f} s embedded, {report.sound.dropped:,.1f} s dropped"
    rates = report.rates
    if rate := rates.per_second or rates.tokens_per_second:
        found["throughput"] = f"{shown_rate(rate)} {report.modality.unit}/s"
        found["padding"] = f"{rates.padding_share:.1%} of the tokens through the model"
        found["encoder busy"] = f"{rates.encoder_busy_share:.0%} of the embed step"
    if report.usd is not None:
        found["cost"] = f"{report.usd:,.2f} USD"
    if report.served is not None:
        found["serving"] = report.served.collection or f"nothing under {report.alias}"
    found["seconds"] = f"{report.seconds.total:,.1f}"
    found["peak memory"] = f"{report.peak_rss_mb:,} MB"
    return {name: value for name, value in found.items() if value != ""}


def _books(report: Report) -> Iterator[PageSection]:
    import plotly.graph_objects as go

    counts = {kind: getattr(report.items, kind) for kind in KINDS}
    seen = {kind: count for kind, count in counts.items() if count}
    table = pa.table({"items": ["read", *counts], "count": [report.items.read, *counts.values()]})
    if not seen:
        return
    labels = [f"read {report.items.read:,}", *(f"{kind} {count:,}" for kind, count in seen.items())]
    links = {"source": [0] * len(seen), "target": [*range(1, len(labels))], "value": [*seen.values()]}
    figure = go.Figure(go.Sankey(node={"label": labels, "pad": 24}, link=links))
    figure.update_layout(template="plotly_white", font={"size": 14}, margin={"t": 24})
    yield PageSection(
        "Items", figure, table, "The items read are those new, changed, moved, unchanged and rejected, together."
    )


def _time(report: Report) -> Iterator[PageSection]:
    spent = {step: value for step, value in report.seconds.model_dump().items() if step != "total" and value}
    if spent:
        note = f"{report.seconds.total:,.1f} s in total. Steps overlap where they run at the same time."
        yield PageSection("Seconds by step", _bars(spent, "seconds"), None, note)


def _rejects(report: Report) -> Iterator[PageSection]:
    if not report.rejects:
        return
    total, named = sum(report.rejects.values()), report.rejected
    examples = pa.Table.from_pylist([one.model_dump() for one in named]) if named else None
    if examples is not None:
        examples = examples.select(["error", "reason", "id", "file", "place"])
    note = f"{total:,} rejects, of which {len(named):,} are named here."
    yield PageSection("Rejects by error", _bars(report.rejects, "rejects"), examples, note)


def _gate(report: Report) -> Iterator[PageSection]:
    """All that the run checked of the collection: what the report adds to `verify` is shown without more code."""
    checked = report.verify.model_dump()
    recalls = checked.pop("recalls")
    if checked["found"] or checked["expected"]:
        rows = {name: value for name, value in checked.items() if value not in (None, "", {})}
        table = pa.table(
            {"check": [name.replace("_", " ") for name in rows], "result": [_cell(v) for v in rows.values()]}
        )
        yield PageSection("The gate", None, table, "The collection against the snapshot, in rows.")
    if recalls:
        yield PageSection("Recall@10 by vector", _bars(recalls, "recall@10"))
    if report.quality is not None:
        found = {name: value for name, value in report.quality.model_dump().items() if value not in (None, "")}
        named = [name.replace("_", " ") for name in found]
        table = pa.table({"of the answers": named, "value": [_cell(value) for value in found.values()]})
        yield PageSection("Quality", None, table, "Of the answers to verify.queries, by exact search.")


def _plan(report: Report) -> Iterator[PageSection]:
    plan = report.plan
    if plan is None:
        return
    facts: dict[str, float] = {**report.items.model_dump()}
    rows: list[dict[str, Any]] = [
        {"of": f"items {kind}", "planned": float(count), "fact": float(facts[kind])}
        for kind, count in plan.items.items()
        if kind in facts
    ]
    unit = report.modality.unit
    embedded = report.sound.embedded if report.sound is not None else report.tokens.embedded
    if plan.chunks or report.chunks.embedded:
        rows.append({"of": "chunks embedded", "planned": float(plan.chunks), "fact": float(report.chunks.embedded)})
    if plan.tokens and unit in ("tokens", "seconds"):
        planned = plan.tokens / report.modality.per_unit
        rows.append({"of": f"{unit} embedded", "planned": planned, "fact": float(embedded)})
    if plan.embed_seconds is not None:
        rows.append({"of": "seconds of embedding", "planned": plan.embed_seconds, "fact": report.seconds.embed})
    if rows:
        table = pa.Table.from_pylist([{**row, **_ratio(row)} for row in rows])
        shown = {"planned": pa.array([f"{row['planned']:,.10g}" for row in rows])}
        shown["fact"] = pa.array([f"{row['fact']:,.10g}" for row in rows])
        for name, values in shown.items():
            table = table.set_column(table.column_names.index(name), name, values)
        yield PageSection("Plan and fact", None, table, "What the run expected before it embedded, and what it did.")


def _ratio(row: dict[str, Any]) -> dict[str, str]:
    return {"difference": f"{row['fact'] / row['planned'] - 1:+.0%}" if row["planned"] else ""}


def _history(history: Sequence[Report], more: int) -> Iterator[PageSection]:
    if not history:
        return
    from plotly.subplots import make_subplots

    series: dict[str, list[float | None]] = {
        "seconds": [run.seconds.total for run in history],
        f"{history[0].modality.unit}/s": [
            run.rates.per_second or run.rates.tokens_per_second or None for run in history
        ],
        "rejected items": [run.items.rejected for run in history],
        "recall@10": [run.verify.recall_at_10 for run in history],
        "nDCG@10": [None if run.quality is None else run.quality.ndcg_at_10 for run in history],
    }
    names = [run.run_id for run in history]
    nothing = [None] * len(history)
    series = {name: values for name, values in series.items() if any(value is not None for value in values)}
    figure = make_subplots(rows=len(series), cols=1, shared_xaxes=True, subplot_titles=[*series])
    for at, values in enumerate(series.values(), 1):
        figure.add_scatter(x=names[::-1], y=values[::-1], mode="lines+markers", connectgaps=True, row=at, col=1)
    figure.update_layout(template="plotly_white", showlegend=False, height=180 * len(series) + 80)
    figure.update_xaxes(showticklabels=False)
    table = pa.table(
        {
            "run": names,
            "command": [run.command for run in history],
            "result": [result(run) for run in history],
            "seconds": series["seconds"],
            "items read": [run.items.read for run in history],
            "rejected": series["rejected items"],
            **{name: pa.array(series.get(name, nothing), pa.float64()) for name in ("recall@10", "nDCG@10")},
        }
    )
    note = f"{more:,} earlier runs are not shown." if more else ""
    yield PageSection("Runs", figure if len(history) > 1 else None, table, note)


def _bars(values: dict[str, Any], unit: str) -> Any:
    import plotly.graph_objects as go

    # As text: a bar is named by its error or step, whatever letters that has.
    names = [str(name) for name in values]
    figure = go.Figure(go.Bar(y=names, x=[*values.values()], orientation="h"))
    figure.update_layout(template="plotly_white", xaxis_title=unit, margin={"t": 24})
    figure.update_yaxes(autorange="reversed", type="category", automargin=True)
    return figure


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
