"""Corpus to snapshot: what changed, the fused stage that embeds it, and the snapshot over old parts and new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.run.jobs import beam_job
from pipelines.run.session import Session
from pipelines.steps.corpus.changes import Changes, drops_by_shard, find_changes, is_unchanged
from pipelines.steps.corpus.int8_sample import prepare_sample
from pipelines.steps.corpus.source import Source, settled
from pipelines.steps.judgement.forecast import expect, first_rejects, foreseen_rejects
from pipelines.steps.judgement.limits import check_deletions, check_draft, check_fields
from pipelines.steps.judgement.named_rejects import named_rejects
from pipelines.steps.judgement.null_columns import explained, null_columns, unfilterable
from pipelines.steps.judgement.standing import Standing
from pipelines.steps.judgement.vector_limits import check_draft_vectors
from pipelines.steps.snapshot.left_records import left_records
from schemas.errors import InterruptedRunError, JobEndedError, JobLeftError, RejectsError, VecbeamError
from schemas.modality import Modality
from schemas.records import FILE_SCHEMA, PART_SCHEMA
from schemas.run_amounts import Sound
from schemas.run_report import Report
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.checkpoint.snapshot import with_any
from transforms.embed.int8_texts import needs_texts
from transforms.embed.record import FILE_RECORDS, PART_RECORDS, pieces_of, read_records
from transforms.read import CONTAINER_ERRORS
from transforms.read.listing.files import shown_column
from transforms.support.amounts import MILLISECONDS
from transforms.support.storage import filesystem, spill
from transforms.support.work_list import listed

if TYPE_CHECKING:
    from pipelines.steps.snapshot.one_job import OneJob

EMBEDDED_AS_READ = 64
"""A byte that is embedded takes as much time as so many that are read, on a processor without an accelerator."""

_LISTED = ["size", "modified", "version"]
_URI = pa.schema([pa.field("uri", pa.large_string())])


def bring_up_to_date(
    session: Session, source: Source, standing: Standing, *, allow_deletes: bool = False, full_refresh: bool = False
) -> Snapshot:
    """Embeds what is missing in the checkpoint and returns the snapshot of the corpus as it is now.

    Nothing is read where the corpus and the configuration are those of the current snapshot. A run that is refused
    leaves the current snapshot as it is.

    Args:
        standing: what is served.
        allow_deletes: lifts `corpus.max_deleted`.
        full_refresh: embeds everything, whatever parts exist: for another precision, for example.

    Raises:
        ConfigurationError: if no record has a field that the configuration names.
        CorpusError: two items with one id, where the configuration says `on_duplicate: error`.
        EncoderError: if a model can't run on this machine, as far as that is known before it is loaded.
        GateError: if more would be deleted than allowed, or the vectors are over a limit.
        RejectsError: if no item could be embedded, or more was rejected or dropped than allowed.
    """
    for note in source.notes:
        session.progress.note(note)
    session.report.warnings += source.notes
    checkpoint = source.checkpoint
    current = None if full_refresh else checkpoint.current_snapshot()
    if current is not None and is_unchanged(source, current):
        session.progress.note(f"unchanged since snapshot {current.name}: nothing to read or embed")
        report_unchanged(session, current)
        return current
    if current is None:
        _check_runnable(session, source)
    filesystem.sweep_temporaries(checkpoint.root)
    checkpoint.write_space(source.models.space)
    salt = _salt(session) if full_refresh else ""
    one_job = _one_job(session, salt, standing, allow_deletes=allow_deletes)
    changes = find_changes(session, source, current, session.uri("diff"), salt=salt, combined=one_job)
    records = one_job.records if one_job is not None else ""
    return embed_changes(session, changes, standing, allow_deletes=allow_deletes, salt=salt, records=records)


def _one_job(session: Session, salt: str, standing: Standing, *, allow_deletes: bool) -> OneJob | None:
    if session.config.runner.is_local:
        return None
    from pipelines.steps.snapshot.one_job import OneJob

    return OneJob(session, salt, standing, allow_deletes=allow_deletes)


def _check_runnable(session: Session, source: Source) -> None:
    # Workers on other machines have packages of their own. This one measures what int8 costs.
    if session.config.runner.is_local or needs_texts(session.config):
        source.models.check_runnable()


def _salt(session: Session) -> str:
    return "".join(f" {encoder.precision}" for encoder in session.config.vectors.values())


def embed_changes(
    session: Session,
    changes: Changes,
    standing: Standing,
    *,
    allow_deletes: bool = False,
    salt: str = "",
    records: str = "",
) -> Snapshot:
    """Embeds what a diff found and writes the snapshot; see `bring_up_to_date`.

    Args:
        records: folder with the records of all parts, where the job that compared has embedded them.
    """
    is_left = False
    try:
        # A run that is refused before it embeds has found these anyway.
        session.report.rejects, session.report.rejected = foreseen_rejects(changes), first_rejects(changes)
        check_fields(changes, session.config)
        check_deletions(changes, session.config, standing, allowed=allow_deletes)
        if changes.shards:
            _check_runnable(session, changes.source)
        return _embedded(session, changes, standing, allow_deletes=allow_deletes, salt=salt, records=records)
    except JobLeftError:
        is_left = True
        raise
    finally:
        if not is_left:
            session.forget_left()
            changes.findings.remove()


def _embedded(
    session: Session, changes: Changes, standing: Standing, *, allow_deletes: bool, salt: str, records: str
) -> Snapshot:
    expect(session, changes)
    checkpoint, base = changes.source.checkpoint, changes.base
    if base is not None and changes.lost:
        session.progress.note(f"{len(changes.lost)} parts of {base.name} are missing or damaged: making them again")
        checkpoint.delete_parts([base.part_names[at] for at in changes.lost])
    parts, files = _embed(session, changes, salt, records)
    unsettled = settled(changes.source, session.config)
    if not unsettled.all():
        session.progress.note(
            f"{np.count_nonzero(~unsettled)} files changed since they were listed: run the command again"
        )
    draft, written = checkpoint.draft_snapshot(
        _parts_of(changes, parts),
        _files_of(changes, files, unsettled),
        changes.source.corpus_digest,
        changes.source.settings_digest,
    )
    _report(session, changes, draft, parts)
    if written:
        return draft
    check_draft(session, changes, draft, standing, allow_deletes=allow_deletes)
    check_draft_vectors(session, checkpoint, draft, standing)
    return checkpoint.write_snapshot(draft)


def _embed(session: Session, changes: Changes, salt: str, records: str) -> tuple[pa.Table, pa.Table]:
    """Runs the fused stage, unless a job has; returns tables of `PART_RECORDS` and `FILE_RECORDS`."""
    if not changes.shards:
        return PART_RECORDS.empty_table(), FILE_RECORDS.empty_table()
    from transforms.embed.lazy_encoders import release_encoders
    from transforms.embed.public.read_items import SHARD_WORK, ShardWork
    from transforms.embed.stage import Embedding, EmbedShards, WriteRecords

    found = read_records(records) if records else left_records(session, changes)
    if found is not None:
        prepare_sample(session, changes)
        return _in_corpus_order(found[0], changes), found[1]
    sample = prepare_sample(session, changes)
    session.progress.step("embed", total=changes.surveyed or len(changes.source.changed))
    source, findings = changes.source, changes.findings
    drops = drops_by_shard(changes)
    plans = findings.plans() if changes.base is not None else {}
    # A shard without any item has no plan, and needs none.
    work = [ShardWork(shard, drops.get(shard.index, {}), plans.get(str(shard.index), "")) for shard in changes.shards]
    folder = session.uri("records")
    embedding = Embedding(
        session.config,
        source.models.layout,
        source.models.cutting,
        source.checkpoint,
        findings.files_uri,
        changes.side(),
        salt,
        sample,
        session.uri("chunks"),
    )

    with listed(work, SHARD_WORK, session.uri("work/shards.parquet")) as shards:

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Shards" >> shards
                | "EmbedShards" >> EmbedShards(embedding)
                | "WriteRecords" >> WriteRecords(folder, pieces_of(len(work)))
            )

        try:
            with session.resumable(
                "embed",
                changes.of,
                diff=findings.folder,
                records=folder,
                chunks=session.uri("chunks"),
                work=session.uri("work"),
            ):
                session.add_counters(
                    beam_job.run(session.config, build, session, reads=embedding_bytes(session, changes))
                )
        except JobLeftError:
            raise
        except (InterruptedRunError, JobEndedError):
            embedding.forget_attempts()
            raise
    release_encoders()
    parts, files = read_records(folder)  # the snapshot holds the same permanently
    embedding.remove_leftovers()
    if not files.num_rows and changes.base is None:
        raise RejectsError(
            "the corpus holds no item at all", "check that the files which corpus.paths matches hold records"
        )
    return _in_corpus_order(parts, changes), files


def embedding_bytes(session: Session, changes: Changes) -> int | None:
    """Bytes that the fused stage reads, with `EMBEDDED_AS_READ` for each that is embedded.

    None if it must not run in the process that starts the run: an accelerator is configured, the process can't run the
    models, or records name media of unknown size.
    """
    config, source = session.config, changes.source
    if config.runner.is_local or config.accelerator is not None or source.refers_elsewhere:
        return None
    try:
        source.models.check_runnable()
    except VecbeamError:
        return None
    # The content of a medium is its bytes, which no survey reads; and a first run may have had no survey.
    known = changes.surveyed > 0 and config.corpus.modality is Modality.TEXT
    embedded = changes.bytes_to_embed if known else source.changed_bytes
    return source.changed_bytes + EMBEDDED_AS_READ * embedded


def _in_corpus_order(parts: pa.Table, changes: Changes) -> pa.Table:
    index = {shard.name: shard.index for shard in changes.shards}
    positions = pa.array([index[name] for name in parts.column("shard").to_pylist()], pa.int64())
    order = [("position", "ascending"), ("ordinal", "ascending")]
    return parts.append_column("position", positions).sort_by(order).drop_columns(["position"])


def _parts_of(changes: Changes, parts: pa.Table) -> pa.Table:
    """The parts of the new snapshot: those of the old one, less what is dead by now, and the new ones."""
    new = parts.filter(pc.greater(parts.column("rows"), 0))
    none = pa.array([[]] * new.num_rows, pa.list_(pa.int32()))
    tables = [new.append_column("dead", none).select(PART_SCHEMA.names).cast(PART_SCHEMA)]
    if changes.base is not None:
        tables.insert(0, _less(changes.base.parts, changes.findings.dead, set(changes.lost)))
    return pa.concat_tables(tables)


def _less(parts: pa.Table, dead: pa.Table, lost: set[int]) -> pa.Table:
    rows = parts.to_pylist()
    for gone in dead.to_pylist():
        row = rows[gone["part"]]
        row["dead"] = sorted({*row["dead"], *gone["dead"]})
        row["rows"] -= len(gone["dead"])
        for name in ("items", "tokens", "tokens_dropped"):
            row[name] -= gone[name]
    live = [row for at, row in enumerate(rows) if at not in lost and row["rows"] > 0]
    return pa.Table.from_pylist(live, schema=PART_SCHEMA)


def _files_of(changes: Changes, records: pa.Table, unsettled: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Table:
    """The files of the new snapshot, in corpus order."""
    source = changes.source
    is_read = source.is_read.to_numpy()
    read = _files_read(source, records, unsettled[is_read], changes.findings.spared(), np.flatnonzero(is_read))
    if is_read.all() or changes.base is None:
        return read
    listed = spill.filtered(source.files.select(["name", *_LISTED]), ~is_read).rename_columns(["path", *_LISTED])
    return spill.interleaved(read, spill.spilled(_files_kept(listed, changes.base.files), FILE_SCHEMA), is_read)


def _files_kept(listed: pa.Table, before: pa.Table) -> Iterator[pa.Table]:
    """The rows that files have in a snapshot, with what the listing says of them now."""
    names = listed.select(["path"])
    for now, then in zip(spill.pieces(listed), spill.beside(names, before, "path"), strict=True):
        columns = {name: then.column(name) for name in FILE_SCHEMA.names}
        columns |= {name: now.column(name) for name in _LISTED}
        columns["version"] = _or_null(now.column("version"))
        yield pa.table(columns).cast(FILE_SCHEMA)


def _or_null(versions: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(versions, ""), None, versions)


def _files_read(
    source: Source,
    records: pa.Table,
    unsettled: np.ndarray[Any, np.dtype[np.bool_]],
    spared: dict[int, int],
    positions: np.ndarray[Any, np.dtype[np.int64]],
) -> pa.Table:
    files = source.changed.table
    shown = (pa.table([shown_column(piece.column("uri"))], _URI) for piece in spill.pieces(files.select(["uri"])))
    uris = spill.spilled(shown, _URI)
    rejected = with_any(records, "errors").select(["uri", "errors"]).to_pylist()
    names = [row["uri"] for row in rejected if any(error["error"] in CONTAINER_ERRORS for error in row["errors"])]
    broken = pa.array(names, _URI.field("uri").type)

    def tables() -> Iterator[pa.Table]:
        found = spill.beside(uris, records.select(FILE_RECORDS.names), "uri")
        start = 0
        for piece, uri, record in zip(spill.pieces(files), spill.pieces(uris), found, strict=True):
            here = slice(start, start + piece.num_rows)
            read = pc.fill_null(record.column("items_read"), 0).to_numpy().copy()
            if spared:
                read += np.array([spared.get(int(position), 0) for position in positions[here]], np.int64)
            whole = pc.invert(pc.is_in(uri.column("uri"), value_set=broken))
            columns = {
                "path": piece.column("name").cast(pa.string()),
                "size": piece.column("size"),
                "modified": piece.column("modified"),
                "items_read": read,
                **{name: _or_empty(record.column(name)) for name in ("errors", "rejects")},
                "complete": pc.and_(whole, pa.array(unsettled[here])),
                "version": _or_null(piece.column("version")),
            }
            yield pa.table(columns, schema=FILE_SCHEMA)
            start = here.stop

    return spill.spilled(tables(), FILE_SCHEMA)


def _or_empty(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists, and an empty one instead of each null."""
    return pc.if_else(pc.is_valid(lists), lists, pa.scalar([], lists.type)) if lists.null_count else lists


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


def _report(session: Session, changes: Changes, snapshot: Snapshot, parts: pa.Table) -> None:
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
