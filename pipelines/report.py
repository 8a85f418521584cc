"""What runs did, from the checkpoint: a report as a page of text, the list of runs, rejects by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice

from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.report import Rejected, Report, Verification
from transforms import filesystem

log = logging.getLogger("vecbeam")

LISTED = 50
"""Runs of a list."""

NAMED = 5
"""Rejects that a run names on the terminal."""

_RESULTS = {
    0: "done",
    1: "failed",
    2: "refused",
    3: "check not passed",
    4: "over a limit",
    130: "stopped",
}


def read_report(config: Config, run_id: str | None = None) -> Report:
    """The report of a run, or of the last run that could change data.

    That is the last backfill, sync, reindex, load, replay, rollback, `verify --repair` or `gc --yes`, whichever way it
    ended. Where there was none, it is the last run of all.

    Raises:
        ConfigurationError: where there is no such run.
    """
    if run_id is not None:
        uri = filesystem.join(_folder(config), run_id, "report.json")
        if "/" in run_id or not filesystem.exists(uri):
            raise ConfigurationError(
                f"no report of run {run_id} below {_folder(config)}", "vecbeam report --list lists the runs"
            )
        return Report.model_validate_json(filesystem.read_bytes(uri))
    last = None
    for report in reports(config):
        if report.changing:
            return report
        last = last or report
    if last is None:
        raise ConfigurationError(f"no report of any run below {_folder(config)}", "run vecbeam backfill first")
    return last


def reports(config: Config) -> Iterator[Report]:
    """The reports of all runs, newest first; one that can't be read is left out, as nothing but a page hangs on it."""
    for uri in _uris(config):
        try:
            yield Report.model_validate_json(filesystem.read_bytes(uri))
        except (OSError, ValueError) as error:
            log.warning("can't read %s: %s", uri, error)


def latest(config: Config, most: int = LISTED) -> tuple[list[Report], int]:
    """The newest runs, newest first, and how many more there are."""
    found = list(islice(reports(config), most))
    return found, max(0, len(_uris(config)) - most)


def _folder(config: Config) -> str:
    from pipelines.beam_runner import prepare_filesystems

    prepare_filesystems(config)
    return filesystem.join(config.checkpoint, config.name, "runs")


def _uris(config: Config) -> list[str]:
    """The reports, newest first."""
    found = filesystem.list_files(_folder(config), "*/report.json")

    def began(file: filesystem.FileInfo) -> tuple[str, float]:
        # Before format version 2 a run's name told the second alone: of two in one second the file's time decides.
        second, _, fraction = file.uri.split("/")[-2].partition("-")[0].rstrip("Z").partition(".")
        return second, float(f"0.{fraction}") if fraction.isdigit() else file.modified % 1

    return [file.uri for file in sorted(found, key=began, reverse=True)]


def text(report: Report, *, with_error: bool = True) -> str:
    """The report for people: what the run did, and of what it did not come to, not a word.

    Args:
        with_error: with error and remedy; without them where the command line shows both already.
    """
    head = f"{report.command} {report.run_id}"
    if report.error is not None or report.exit_code:
        head += f": {result(report)}"
    lines = [head]
    if report.error is not None and with_error:
        lines.append(f"error     {report.error.kind}: {report.error.message}")
        if report.error.remedy:
            lines.append(f"remedy    {report.error.remedy}")
    if report.reason:
        lines.append(f"{'removed' if report.command == 'gc' else 'changed':<10}{report.reason}")
    lines += [*_corpus(report), *_work(report), *_check(report)]
    if serving := _serving(report):
        lines.append(f"serving   {serving}")
    lines.append(f"seconds   {_seconds(report)}")
    lines += [*_encoder(report), f"memory    {report.peak_rss_mb:,} MB at most"]
    if report.retries:
        lines.append(f"retries   {report.retries}")
    lines += [f"warning   {warning}" for warning in report.warnings]
    return "\n".join(lines)


def result(report: Report) -> str:
    """How a run ended, in a few words, with its exit code where that is not 0."""
    if report.exit_code == 0:
        return "done"
    shown = _RESULTS.get(report.exit_code, "failed")
    return f"{shown}, exit code {report.exit_code}"


def _corpus(report: Report) -> Iterator[str]:
    items, rejected = report.items, report.rejected
    if items.read or items.deleted:
        yield (
            f"items     {items.read:,} read = {items.new:,} new + {items.changed:,} changed "
            f"+ {items.moved:,} moved + {items.unchanged:,} unchanged + {items.rejected:,} rejected"
            + (f"; {items.deleted:,} {_deleted(report)}" if items.deleted else "")
        )
    if report.rejects:
        yield "rejects   " + ", ".join(f"{count:,} {error}" for error, count in report.rejects.items())
        yield from (f"          {reject}" for reject in rejected[:NAMED])
        if rejected and (more := sum(report.rejects.values()) - len(rejected[:NAMED])) > 0:
            yield f"          and {more:,} more: vecbeam report --rejects"


def _deleted(report: Report) -> str:
    """A run that was refused deleted nothing of what it would have."""
    return "deleted" if report.error is None or report.chunks.deleted or _moved(report) else "to delete, none deleted"


def _moved(report: Report) -> bool:
    return report.served is not None and report.served.moved


def _work(report: Report) -> Iterator[str]:
    chunks, tokens, plan = report.chunks, report.tokens, report.plan
    if plan is not None and plan.tokens:
        seconds = plan.embed_seconds
        expected = "" if seconds is None else f" in {seconds:,.1f} s"
        yield f"expected  {plan.chunks:,} chunks, {plan.tokens:,} tokens{expected}"
    done = {"embedded": chunks.embedded, "reused": chunks.reused, "loaded": chunks.loaded, "deleted": chunks.deleted}
    if any(done.values()):
        yield "chunks    " + ", ".join(f"{count:,} {what}" for what, count in done.items() if count)
    if tokens.embedded:
        yield f"tokens    {tokens.embedded:,} embedded, {tokens.padded:,} padding, {tokens.dropped:,} dropped"
    elif tokens.dropped:
        yield f"tokens    {tokens.dropped:,} dropped"


def _check(report: Report) -> Iterator[str]:
    verify = report.verify
    if not (verify.expected or verify.found):
        return
    if not verify.compared and report.format_version > 1 and verify.found == verify.expected:
        # To say that none is missing would claim what nobody looked at.
        yield f"verify    {verify.found:,} rows of {verify.expected:,}, by their number"
        return
    recall = "" if verify.recall_at_10 is None else f", recall@10 {verify.recall_at_10:.4f}"
    yield (
        f"verify    {verify.found:,} rows of {verify.expected:,}, {verify.missing} missing, "
        f"{verify.unexpected} unexpected, {verify.stale} stale, {verify.damaged} damaged{_compared(verify)}{recall}"
    )


def _serving(report: Report) -> str:
    """What is served now, and what was not changed; "" where neither is known."""
    served = report.served
    if served is None:
        if report.format_version > 1 or not (report.verify.published and report.collection and not report.error):
            return ""
        return f"{report.alias} -> {report.collection}, space {report.space or '-'}"
    if not served.collection:
        return f"nothing under {report.alias}" + (", as before" if report.error else "")
    found = f"{report.alias} -> {served.collection}"
    if served.moved:
        found += f", before that {served.before}" if served.before else ""
    elif report.error is not None:
        found += ", as before; " + ("its rows were not changed" if _left_alone(report) else _PARTLY)
    if report.space and served.collection == report.collection:
        found += f", space {report.space}"
    return found


_PARTLY = "rows of it may have been written"


def _left_alone(report: Report) -> bool:
    """Whether the run wrote nothing into the collection that is served."""
    if report.served is None or report.collection != report.served.collection:
        return True
    return not (report.chunks.loaded or report.chunks.deleted or {"load", "import"} & set(report.steps))


def _encoder(report: Report) -> Iterator[str]:
    if report.rates.tokens_per_second:
        rates, runtime = report.rates, report.runtime
        engine = " ".join(runtime[key] for key in ("engine", "precision", "device") if key in runtime)
        yield (
            f"encoder   {rates.tokens_per_second:,.0f} tokens/s on {engine or '-'}, {rates.padding_share:.1%} padding, "
            f"computing {rates.encoder_busy_share:.0%} of its step"
            + (f", {rates.model_flop_utilisation:.0%} of the matrix rate" if rates.model_flop_utilisation else "")
        )
    if report.loss is not None:
        loss = report.loss
        yield (
            f"int8      keeps {loss.neighbours_kept:.1%} of the ten nearest among {loss.texts} texts, "
            f"cosine to float32 {loss.cosine_mean:.4f} on average, {loss.cosine_min:.4f} at worst"
        )


def line(report: Report) -> str:
    """The report in one line, with what was done and nothing else; "" where that is nothing. `--quiet` prints it."""
    items, chunks, verify = report.items, report.chunks, report.verify
    counted = {
        "items": (("read", items.read), ("new", items.new), ("changed", items.changed), ("moved", items.moved)),
        "": ((_deleted(report), items.deleted), ("rejected", items.rejected)),
        "chunks": (("embedded", chunks.embedded), ("reused", chunks.reused), ("loaded", chunks.loaded)),
    }
    said = {name: ", ".join(f"{count:,} {what}" for what, count in of if count) for name, of in counted.items()}
    parts = [", ".join(part for part in (said["items"], said[""]) if part)]
    parts = [*([report.reason] if report.reason else []), *(f"items {part}" for part in parts if part)]
    if report.rejects:
        parts.append("rejects " + ", ".join(f"{count:,} {error}" for error, count in report.rejects.items()))
    if said["chunks"]:
        parts.append(f"chunks {said['chunks']}")
    if verify.expected or verify.found:
        recall = "" if verify.recall_at_10 is None else f", recall@10 {verify.recall_at_10:.4f}"
        parts.append(f"verify {verify.found:,} rows of {verify.expected:,}{recall}")
    if report.collection and report.exit_code == 0:
        parts.append(f"serving {report.alias} -> {report.collection}")
    parts += [f"warning {warning}" for warning in report.warnings]
    if not parts and report.exit_code:
        return ""
    return f"{report.command}: {'; '.join(parts) or 'nothing to do'}"


def _compared(verify: Verification) -> str:
    """What was compared to know it, in brackets."""
    words = {"sampled": "all columns of a sample compared"}
    return f" ({words.get(verify.compared, verify.compared + ' compared')})" if verify.compared else ""


def _seconds(report: Report) -> str:
    spent = report.seconds.model_dump()
    total = spent.pop("total")
    parts = [f"{step} {value:.1f} ({value / max(total, 1e-9):.0%})" for step, value in spent.items() if value >= 0.05]
    return f"{total:.1f} in all" + (f": {', '.join(parts)}" if parts else "")


def list_text(found: Sequence[Report], more: int) -> str:
    """Runs for people, a line each, newest first."""
    if not found:
        return "no runs yet"
    rows = [("run", "command", "result", "seconds", "items")]
    for report in found:
        items, command = report.items, report.command
        if command == "verify" and report.changing:
            command = "verify --repair"
        counts = {"new": items.new, "changed": items.changed, "moved": items.moved}
        counts |= {_deleted(report): items.deleted, "rejected": items.rejected}
        shown = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        amount = f"{items.read:,}" + (f" ({shown})" if shown else "") if items.read else "-"
        rows.append((report.run_id, command, result(report), f"{report.seconds.total:,.1f}", amount))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *([f"and {more:,} earlier ones"] if more else [])])


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
    """The rejects of a run by name, for people."""
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
