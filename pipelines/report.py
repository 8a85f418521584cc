"""A run's report as a page of text, and finding it in the checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.report import Report
from transforms import filesystem

log = logging.getLogger("vecbeam")


def read_report(config: Config, run_id: str | None = None) -> Report:
    """The report of a run, or of the last run.

    Raises:
        ConfigurationError: where there is no such run.
    """
    from pipelines.beam_runner import prepare_filesystems

    prepare_filesystems(config)
    folder = filesystem.join(config.checkpoint, config.name, "runs")
    found = filesystem.glob(filesystem.join(folder, run_id or "*", "report.json"))
    if not found:
        raise ConfigurationError(f"no report of run {run_id or '(any)'} below {folder}", "run vecbeam backfill first")
    return Report.model_validate_json(filesystem.read_bytes(found[-1].uri))


def reports(config: Config) -> Iterator[Report]:
    """The reports of all runs, newest first; one that can't be read is left out, as nothing but a page hangs on it."""
    from pipelines.beam_runner import prepare_filesystems

    prepare_filesystems(config)
    folder = filesystem.join(config.checkpoint, config.name, "runs")
    for file in reversed(filesystem.glob(filesystem.join(folder, "*", "report.json"))):
        try:
            yield Report.model_validate_json(filesystem.read_bytes(file.uri))
        except (OSError, ValueError) as error:
            log.warning("can't read %s: %s", file.uri, error)


def text(report: Report) -> str:
    """The report for people."""
    items, chunks, tokens, verify = report.items, report.chunks, report.tokens, report.verify
    state = "published" if verify.published else "not published"
    recall = "" if verify.recall_at_10 is None else f", recall@10 {verify.recall_at_10:.4f}"
    lines = [
        f"{report.command} {report.run_id}",
        f"items     {items.read:,} read = {items.new:,} new + {items.changed:,} changed "
        f"+ {items.moved:,} moved + {items.unchanged:,} unchanged + {items.rejected:,} rejected"
        + (f"; {items.deleted:,} deleted" if items.deleted else ""),
        f"chunks    {chunks.embedded:,} embedded, {chunks.reused:,} reused, {chunks.loaded:,} loaded, "
        f"{chunks.deleted:,} deleted",
        f"tokens    {tokens.embedded:,} embedded, {tokens.padded:,} padding, {tokens.dropped:,} dropped",
        f"verify    {verify.found:,} rows of {verify.expected:,}, {verify.missing} missing, "
        f"{verify.unexpected} unexpected, {verify.stale} stale{recall}",
        f"serving   {report.alias} -> {report.collection or '-'} ({state}), space {report.space or '-'}",
        f"seconds   {_seconds(report)}",
        f"memory    {report.peak_rss_mb:,} MB at most",
    ]
    if report.rates.tokens_per_second:
        rates, runtime = report.rates, report.runtime
        engine = " ".join(runtime[key] for key in ("engine", "precision", "device") if key in runtime)
        lines.insert(
            -1,
            f"encoder   {rates.tokens_per_second:,.0f} tokens/s on {engine or '-'}, {rates.padding_share:.1%} padding, "
            f"computing {rates.encoder_busy_share:.0%} of its step"
            + (f", {rates.model_flop_utilisation:.0%} of the matrix rate" if rates.model_flop_utilisation else ""),
        )
    if report.loss is not None:
        loss = report.loss
        lines.insert(
            -1,
            f"int8      keeps {loss.neighbours_kept:.1%} of the ten nearest among {loss.texts} texts, "
            f"cosine to float32 {loss.cosine_mean:.4f} on average, {loss.cosine_min:.4f} at worst",
        )
    if report.rejects:
        lines.insert(2, "rejects   " + ", ".join(f"{count:,} {error}" for error, count in report.rejects.items()))
    if report.plan is not None and report.plan.tokens:
        seconds = report.plan.embed_seconds
        expected = "" if seconds is None else f" in {seconds:,.1f} s"
        lines.insert(4, f"expected  {report.plan.chunks:,} chunks, {report.plan.tokens:,} tokens{expected}")
    if report.reason:
        lines.insert(1, f"changed   {report.reason}")
    if report.retries:
        lines.append(f"retries   {report.retries}")
    return "\n".join(lines)


def _seconds(report: Report) -> str:
    spent = report.seconds.model_dump()
    total = spent.pop("total")
    parts = [f"{step} {value:.1f} ({value / total:.0%})" for step, value in spent.items() if value >= 0.05]
    return f"{total:.1f} in all: {', '.join(parts)}"
