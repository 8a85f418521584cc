"""Compaction: after many syncs the small parts of a checkpoint are merged into full ones."""

from __future__ import annotations

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.run.jobs import beam_job
from pipelines.run.session import Session
from schemas.records import PART_SCHEMA
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.checkpoint.merge import MERGES, Merge, MergeParts, find_merges
from transforms.embed.record import PART_RECORDS, pieces_of, read_records
from transforms.support.work_list import listed


def compact(session: Session, checkpoint: Checkpoint, snapshot: Snapshot) -> Snapshot:
    """Merges the small parts of a snapshot if there are many; returns the resulting snapshot.

    The rows stay the same, so a collection needs no write for it.
    """
    from transforms.embed.stage import WriteRecords

    merges = find_merges(snapshot, session.config.batch_rows)
    if not merges:
        return snapshot
    session.progress.note(f"merging {sum(len(merge.parts) for merge in merges)} small parts into {len(merges)}")
    folder = session.uri("records")
    with listed(merges, MERGES, session.uri("work/merges.parquet")) as work:

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Merges" >> work
                | "MergeParts" >> beam.ParDo(MergeParts(checkpoint))
                | "WriteRecords" >> WriteRecords(folder, pieces_of(len(merges)))
            )

        sizes = snapshot.parts.column("bytes").take(pa.array([at for merge in merges for at in merge.positions]))
        session.add_counters(beam_job.run(session.config, build, session, reads=pc.sum(sizes).as_py()))
    records, _ = read_records(folder)
    draft, written = checkpoint.draft_snapshot(
        _replaced(snapshot.parts, merges, records), snapshot.files, snapshot.corpus_digest, snapshot.settings_digest
    )
    return draft if written else checkpoint.write_snapshot(draft)


def _replaced(parts: pa.Table, merges: list[Merge], records: pa.Table) -> pa.Table:
    gone = {position for merge in merges for position in merge.positions}
    stay = parts.take(pa.array([at for at in range(parts.num_rows) if at not in gone], pa.int64()))
    none = pa.array([[]] * records.num_rows, pa.list_(pa.int32()))
    new = records.select(PART_RECORDS.names).append_column("dead", none).sort_by("part")
    return pa.concat_tables([stay, new.select(PART_SCHEMA.names).cast(PART_SCHEMA)])
