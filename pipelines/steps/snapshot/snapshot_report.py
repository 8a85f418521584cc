"""What a run's report says of its snapshot."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.run.session import Session
from pipelines.steps.corpus.changes import Changes
from pipelines.steps.judgement.named_rejects import named_rejects
from pipelines.steps.judgement.null_columns import explained, null_columns, unfilterable
from schemas.run_amounts import Sound
from schemas.run_report import Report
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.support.amounts import MILLISECONDS


def report_unchanged(session: Session, snapshot: Snapshot) -> None:
    """Puts into the report that all is as the snapshot has it."""
    report = session.report
    report.snapshot = snapshot.id
    report.items.read = snapshot.total("items_read")
    report.items.unchanged = snapshot.total("items")
    report.rejects = snapshot.errors()
    checkpoint = Checkpoint(session.config.checkpoint, session.config.name, snapshot.space_id)
    report.rejected = named_rejects(checkpoint, snapshot.files) if report.rejects else []
    report.items.rejected = sum(report.rejects.values())
    report.chunks.reused = snapshot.total("rows")
    _count_dropped(report, snapshot.total("tokens_dropped"))
    report.bytes.checkpoint = snapshot.total("bytes")


def _count_dropped(report: Report, dropped: int) -> None:
    if report.modality.has_rows_of_several:
        report.chunks.cut = dropped
    elif report.modality.unit == "seconds":
        report.sound = Sound(dropped=dropped / MILLISECONDS)
    else:
        report.tokens.dropped = dropped


def report_embedded(session: Session, changes: Changes, snapshot: Snapshot, parts: pa.Table) -> None:
    """Puts into the report what a run has embedded for a snapshot.

    Args:
        parts: table of `PART_RECORDS`, of this run.
    """
    report_unchanged(session, snapshot)
    report = session.report
    done = parts.filter(parts.column("embedded"))
    # A first run that resumes after a crash finds its own parts: to this run they are unchanged.
    counted = done if changes.base is None else parts
    report.items.new = _sum(counted, "new")
    report.items.changed, report.items.moved = _sum(counted, "changed"), _sum(counted, "moved")
    report.items.unchanged -= report.items.new + report.items.changed + report.items.moved
    report.items.deleted = changes.deleted
    report.chunks.embedded = _sum(done, "rows_embedded")
    report.chunks.reused = snapshot.total("rows") - report.chunks.embedded
    if report.sound is not None:
        report.sound.embedded = _sum(done, "tokens_embedded") / MILLISECONDS
    elif not report.modality.has_rows_of_several:
        report.tokens.embedded = _sum(done, "tokens_embedded")
    report.tokens.padded = _sum(done, "tokens_padded")
    report.tokens.billed = session.counter("tokens_billed")
    prices = {one.server.usd_per_million_tokens for one in session.config.vectors.values() if one.server is not None}
    price = prices.pop() if len(prices) == 1 else None
    if price is not None:
        report.usd = round(report.tokens.billed * price / 1e6, 6)
    report.bytes.read = session.counter("bytes_read")
    embedded = done.filter(pc.greater(done.column("rows_embedded"), 0))
    if embedded.num_rows:
        report.runtime = changes.source.checkpoint.runtime(embedded.column("part")[0].as_py())
    columns = null_columns(changes.source.checkpoint, snapshot, list(session.config.corpus.metadata))
    said = explained(columns, session.config.corpus, changes.source.listed)
    for warning in [*unfilterable(session.config), *said]:
        session.progress.note(warning)
        report.warnings.append(warning)


def _sum(table: pa.Table, column: str) -> int:
    return int(pc.sum(table.column(column)).as_py() or 0)
