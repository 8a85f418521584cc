"""What runs did, from the checkpoint: a report as a page of text or HTML, the list of runs, the rejects."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.run import report_store
from pipelines.run.report_text import deleted_words, result
from schemas.config import Config
from schemas.errors import CheckpointError
from schemas.run_report import Rejected, Report

if TYPE_CHECKING:
    from pipelines.steps.results.page_file import PageSection

log = logging.getLogger("vecbeam")


def report(config: Config, run_id: str | None = None, *, html: str | Path | None = None) -> Report:
    """The report of a run; with `html` also as one file that needs no network, with the newest runs.

    Args:
        run_id: by default the last run that could change data.
        html: the file to write.

    Raises:
        ConfigurationError: if there is no such run, the file is not .html or would be one of the corpus, or its folder
            does not exist.
        CheckpointError: if there was no run at all.
        MissingExtraError: with `html`, if the extra `explore` is not installed.
        StorageError: if the file can't be written.
    """
    from pipelines.steps.results.page_file import check_page_file
    from pipelines.steps.results.report_page import write_report_page
    from pipelines.steps.results.table_file import check_outside_corpus

    if html is None:
        return report_store.read_report(config, run_id)
    path = Path(html)
    check_page_file(path)
    check_outside_corpus(path, config.corpus, "--html")
    found = report_store.read_report(config, run_id)
    write_report_page(path, found, *report_store.latest(config), _lengths(config, found))
    return found


def _lengths(config: Config, found: Report) -> PageSection | None:
    """The lengths of the rows of a run's snapshot; None if it has none, or the checkpoint no longer has them."""
    from pipelines.steps.results.row_lengths import length_section
    from transforms.checkpoint import Checkpoint
    from transforms.explore.live_rows import LiveRows

    checkpoint = Checkpoint(config.checkpoint, config.name, "")
    try:
        snapshot = checkpoint.find_snapshot(found.snapshot) if found.snapshot else None
        if snapshot is None:
            return None
        return length_section(LiveRows(replace(checkpoint, space_id=snapshot.space_id), snapshot))
    except CheckpointError as error:
        log.warning("the page has no lengths of rows: %s", error)
        return None


def list_text(found: Sequence[Report], more: int) -> str:
    """Returns the runs as text, one line each, newest first."""
    if not found:
        return "no runs yet"
    rows = [("run", "command", "result", "seconds", "items")]
    for report in found:
        items, command = report.items, report.command
        if command == "verify" and report.changing:
            command = "verify --repair"
        counts = {"new": items.new, "changed": items.changed, "moved": items.moved}
        counts |= {deleted_words(report): items.deleted, "rejected": items.rejected}
        shown = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        amount = f"{items.read:,}" + (f" ({shown})" if shown else "") if items.read else "-"
        rows.append((report.run_id, command, result(report), f"{report.seconds.total:,.1f}", amount))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *([f"and {more:,} earlier runs"] if more else [])])


def list_json(found: Sequence[Report], more: int) -> dict[str, object]:
    """Runs as one JSON object."""
    runs = [
        {
            "run_id": report.run_id,
            "command": report.command,
            "could_change": report.changing,
            "exit_code": report.exit_code,
            "error": report.error.model_dump(by_alias=True) if report.error else None,
            "seconds": report.seconds.total,
            "items": report.items.model_dump(),
        }
        for report in found
    ]
    return {"format_version": 1, "runs": runs, "more": more}


def rejects_text(report: Report) -> str:
    """Returns the rejects of a run as text."""
    total = sum(report.rejects.values())
    if not total:
        return f"no rejects in {report.run_id}"
    counts = ", ".join(f"{count:,} {error}" for error, count in report.rejects.items())
    lines = [f"{total:,} rejects in {report.run_id}: {counts}", *map(str, report.rejected)]
    if more := total - len(report.rejected):
        lines.append(f"and {more:,} more; all are below the folder rejects/ of the checkpoint")
    return "\n".join(lines)


def rejects_json(report: Report) -> dict[str, object]:
    """The rejects of a run as one JSON object."""
    named: list[Rejected] = report.rejected
    total = sum(report.rejects.values())
    return {
        "format_version": 1,
        "run_id": report.run_id,
        "rejects": report.rejects,
        "rejected": [reject.model_dump() for reject in named],
        "more": total - len(named),
    }
