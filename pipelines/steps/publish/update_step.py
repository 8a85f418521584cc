"""The rows in which two snapshots differ, on their way into a collection: one pipeline finds and writes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apache_beam as beam

from pipelines.run.jobs import beam_job
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.part_jobs import Writes
from transforms import milvus
from transforms.checkpoint import Snapshot
from transforms.diff.comparison import buckets_for
from transforms.load.delta import ApplyDelta, FindDelta
from transforms.load.row_differences import NEW, PART_ROWS, part_rows
from transforms.load.upsert_parts import Ledger
from transforms.support.work_list import listed


class UpdateStep:
    """From the snapshot that a collection holds to another one.

    Args:
        given: with the snapshot to reach.
        old: what the collection holds.
        ledger: of the parts whose rows it has acknowledged since.

    Attributes:
        folder: of the delta; see `transforms.load.delta`.

    Raises:
        CheckpointError: if one of the parts is missing or damaged; nothing was written.
    """

    def __init__(self, given: CollectionRun, old: Snapshot, ledger: Ledger) -> None:
        self._given, self._old, self._ledger = given, old, ledger
        self._differing = part_rows(old, given.snapshot)
        for side in self._differing:
            given.checkpoint.part_columns(side.part.name)
        self.folder = given.session.uri("delta")

    @property
    def has_work(self) -> bool:
        """Whether the snapshots differ in any row."""
        return bool(self._differing)

    @property
    def positions(self) -> list[int]:
        """Of the parts of the snapshot to reach that may have rows to write."""
        return [side.position for side in self._differing if side.side == NEW]

    def run(self) -> None:
        """Brings the rows into the collection, in this process."""
        given, session = self._given, self._given.session
        session.progress.step("load", total=self._rows, counter="chunks_loaded")
        with self._begin() as begin:
            counters = beam_job.run(
                given.config,
                lambda pipeline: pipeline | "Write" >> begin,
                session,
                one_writer=given.connection.is_lite,
                reads=self._bytes,
            )
        session.add_counters(counters)
        session.report.chunks.loaded += counters["chunks_loaded"]
        session.report.chunks.deleted += counters["chunks_deleted"]

    def before_comparison(self) -> Writes | None:
        """What brings them there in the job that compares them; None where that is not a job on other machines."""
        if not self.has_work or beam_job.runs_here(self._given.config, self._bytes):
            return None
        return Writes(self._begin, self._rows, [self._old.id, self._ledger.load_id], {"delta": self.folder})

    @contextlib.contextmanager
    def _begin(self) -> Iterator[beam.PTransform]:
        given = self._given
        config, spec, writers = given.config.collection, given.spec, milvus.writers(given.connection)
        buckets = buckets_for(len(self._differing) * given.config.batch_rows)
        find = FindDelta(given.checkpoint, config, spec, self.folder, buckets, writers)
        apply = ApplyDelta(config, spec, self._ledger, given.snapshot.name, self.folder, writers)
        with listed(self._differing, PART_ROWS, given.session.uri("work/delta.parquet")) as work:
            yield ("Parts" >> work) | ("FindDelta" >> find) | ("ApplyDelta" >> apply)

    @property
    def _bytes(self) -> int:
        """Of a part, old or new, at most all bytes."""
        names = [side.part.name for side in self._differing]
        return sum(snapshot.bytes_of(names) for snapshot in (self._old, self._given.snapshot))

    @property
    def _rows(self) -> int:
        """How many rows are written at most."""
        new, before = self._given.snapshot, set(self._old.part_names)
        rows = zip(new.part_names, new.parts.column("rows").to_pylist(), strict=True)
        return sum(count for name, count in rows if name not in before)
