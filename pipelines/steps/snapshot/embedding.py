"""Corpus to snapshot: what changed, the fused stage that embeds it, and the snapshot over old parts and new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.run.jobs import beam_job
from pipelines.run.session import Session
from pipelines.steps.corpus.changes import Changes, drops_by_shard, find_changes, is_unchanged
from pipelines.steps.corpus.int8_sample import prepare_sample
from pipelines.steps.corpus.source import Source, settled
from pipelines.steps.judgement.forecast import expect, first_rejects, foreseen_rejects
from pipelines.steps.judgement.limits import check_deletions, check_draft, check_fields
from pipelines.steps.judgement.standing import Standing
from pipelines.steps.judgement.vector_limits import check_draft_vectors
from pipelines.steps.snapshot.left_records import left_records
from pipelines.steps.snapshot.snapshot_report import report_embedded, report_unchanged
from pipelines.steps.snapshot.snapshot_tables import files_of, parts_of
from schemas.config import Config
from schemas.errors import InterruptedRunError, JobEndedError, JobLeftError, RejectsError, VecbeamError
from schemas.modality import Modality
from transforms.checkpoint import Snapshot
from transforms.embed.int8_texts import needs_texts
from transforms.embed.record import FILE_RECORDS, PART_RECORDS, pieces_of, read_records
from transforms.support.storage import filesystem
from transforms.support.tidying import tidied
from transforms.support.work_list import listed

if TYPE_CHECKING:
    from pipelines.steps.snapshot.one_job import OneJob

EMBEDDED_AS_READ = 64
"""A byte that is embedded takes as much time as so many that are read, on a processor without an accelerator."""


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

    def tidy() -> None:
        session.forget_left()
        changes.findings.remove()

    with tidied(tidy):
        # A run that is refused before it embeds has found these anyway.
        session.report.rejects, session.report.rejected = foreseen_rejects(changes), first_rejects(changes)
        check_fields(changes, session.config)
        check_deletions(changes, session.config, standing, allowed=allow_deletes)
        if changes.shards:
            _check_runnable(session, changes.source)
        return _embedded(session, changes, standing, allow_deletes=allow_deletes, salt=salt, records=records)


def _embedded(
    session: Session, changes: Changes, standing: Standing, *, allow_deletes: bool, salt: str, records: str
) -> Snapshot:
    expect(session, changes)
    checkpoint, base = changes.source.checkpoint, changes.base
    if base is not None and changes.lost:
        session.progress.note(f"{len(changes.lost)} parts of {base.name} are missing or damaged: making them again")
        checkpoint.delete_parts([base.part_names[at] for at in changes.lost])
    parts, files = _embed(session, changes, salt, records)
    is_settled = settled(changes.source, session.config)
    if not is_settled.all():
        session.progress.note(
            f"{np.count_nonzero(~is_settled)} files changed since they were listed: run the command again"
        )
    draft, written = checkpoint.draft_snapshot(
        parts_of(changes, parts),
        files_of(changes, files, is_settled),
        changes.source.corpus_digest,
        changes.source.settings_digest,
    )
    report_embedded(session, changes, draft, parts)
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
                    beam_job.run(session.config, build, session, reads=embedding_bytes(session.config, changes))
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


def embedding_bytes(config: Config, changes: Changes) -> int | None:
    """Bytes that the fused stage reads, with `EMBEDDED_AS_READ` for each that is embedded.

    None if it must not run in the process that starts the run: an accelerator is configured, the process can't run the
    models, or records name media of unknown size.
    """
    source = changes.source
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
