"""Pages of tables: runs, one run, rejects, near duplicates, and two collections next to each other."""

from __future__ import annotations

from typing import Any

from pipelines.explore.duplicates import duplicates as find
from pipelines.run import report_store, report_text
from pipelines.steps.search.hits.found import Found
from pipelines.steps.search.queries.query import LikeQuery
from pipelines.web.card import card
from pipelines.web.request_query import RequestQuery
from pipelines.web.search_view import cards, search
from pipelines.web.site import Site
from schemas.errors import ConfigurationError, VecbeamError
from schemas.modality import shown_rate
from schemas.run_report import Report


def runs(site: Site) -> dict[str, Any]:
    """The newest runs, newest first."""
    found, more = report_store.latest(site.config)
    unit = f"{found[0].modality.unit}/s" if found else "tokens/s"
    values = {"runs": found, "more": more, "result": report_text.result, "unit": unit, "rate": _shown_rate}
    return values | {"charts": _charts(found, unit)}


def run(site: Site, run_id: str) -> dict[str, Any]:
    """One run.

    Raises:
        ConfigurationError: if there is no such run.
    """
    report = report_store.read_report(site.config, run_id)
    return {"report": report, "text": report_text.text(report)}


def rejects(site: Site) -> dict[str, Any]:
    """The rejects of the last run that could change data."""
    report = report_store.read_report(site.config)
    return {"report": report, "total": sum(report.rejects.values())}


def compared(site: Site, wanted: RequestQuery) -> dict[str, Any]:
    """The hits of two collections for one query, and which items only one of them has."""
    values: dict[str, Any] = {"other": site.other, "error": None, "sides": [], "overlap": None}
    values["words"] = wanted.query if isinstance(wanted.query, str) else ""
    values["like"] = wanted.query.row_id if isinstance(wanted.query, LikeQuery) else ""
    if site.other is None or site.other_searcher is None or wanted.query is None:
        return values
    try:
        found: list[tuple[Any, Found]] = [
            (site.config, search(site.searcher, site.config, wanted)),
            (site.other, search(site.other_searcher, site.other, wanted)),
        ]
    except VecbeamError as error:
        return values | {"error": error}
    items = [[hit["item_id"] for hit in one.hits[0]] for _, one in found]
    both = set(items[0]) & set(items[1])
    sides = [
        {"name": config.name, "models": config.model_names, "cards": cards(one, wanted, config)}
        for config, one in found
    ]
    most = max(len(set(items[0])), len(set(items[1])), 1)
    return values | {"sides": sides, "both": both, "overlap": len(both) / most}


WIDTH, HEIGHT = 280, 60


def _rate(report: Report) -> float | None:
    """What the run embedded in a second, in the unit of its corpus."""
    return report.rates.per_second or report.rates.tokens_per_second or None


def _shown_rate(report: Report) -> str:
    return "" if (rate := _rate(report)) is None else shown_rate(rate)


def _charts(found: list[Report], unit: str) -> list[dict[str, Any]]:
    """Lines over the runs, oldest first: what is drawn, its last value, and the points of its line."""
    series: dict[str, list[float | None]] = {
        "recall@10": [report.verify.recall_at_10 for report in found],
        "nDCG@10": [None if report.quality is None else report.quality.ndcg_at_10 for report in found],
        unit: [_rate(report) for report in found],
        "seconds": [report.seconds.total for report in found],
        "rejected items": [float(report.items.rejected) for report in found],
    }
    charts = []
    for name, values in series.items():
        known = [value for value in reversed(values) if value is not None]
        if len(known) > 1:
            charts.append(
                {"name": name, "last": known[-1], "least": min(known), "most": max(known), "points": _line(known)}
            )
    return charts


def _line(values: list[float]) -> str:
    least, most = min(values), max(values)
    spread = (most - least) or 1.0
    step = WIDTH / (len(values) - 1)
    return " ".join(
        f"{at * step:.1f},{HEIGHT - 4 - (value - least) / spread * (HEIGHT - 8):.1f}" for at, value in enumerate(values)
    )


ROWS = 20_000
"""Rows in which near duplicates are looked for: a page does not wait for more."""
SHOWN_ROWS = 400
"""Near duplicates of a page."""


def duplicates(site: Site, above: str) -> dict[str, Any]:
    """Near duplicates among the rows that are served, or the error.

    Args:
        above: the least cosine, as it was written.
    """
    values: dict[str, Any] = {"above": above, "error": None, "found": None, "has_dense": True}
    try:
        if not site.rows().has_dense:
            return values | {"has_dense": False}
        cosine = _cosine(above)
        found = site.once(("duplicates", cosine), lambda: find(site.config, above=cosine, sample=ROWS, served=True))
    except VecbeamError as error:
        return values | {"error": error}
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in found.table.slice(0, SHOWN_ROWS).to_pylist():
        group, keep, similarity = (row.pop(name) for name in ("group", "keep", "similarity"))
        shown = card(row | {"score": similarity}, "COSINE", "", site.config)
        groups.setdefault(group, []).append({"card": shown, "keep": keep})
    left = max(0, found.table.num_rows - SHOWN_ROWS)
    return values | {"found": found, "groups": groups, "basis": found.basis, "left": left}


def _cosine(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise ConfigurationError(f"above is {written!r}, not a number", "for example above=0.95") from None
