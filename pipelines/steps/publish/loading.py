"""Parts of a snapshot on their way into a collection, in a job of their own or in the one that compares them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import apache_beam as beam

from pipelines.run.jobs import beam_job
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.part_jobs import Writes
from schemas.run_report import LOAD_AND_VERIFY
from transforms import milvus
from transforms.checkpoint import LivePart
from transforms.checkpoint.snapshot import LIVE_PARTS
from transforms.load.upsert_parts import Ledger, LoadParts
from transforms.support.memory import give_back, give_back_at_once
from transforms.support.work_list import listed


class Loading:
    """The parts that a collection has not acknowledged.

    Args:
        ledger: of the collection.
        parts: that it is to have.
    """

    def __init__(self, given: CollectionRun, ledger: Ledger, parts: Sequence[LivePart]) -> None:
        acknowledged = ledger.acknowledged()
        self._given = given
        self._ledger = ledger
        self._waiting = [part for part in parts if part.name not in acknowledged]

    def run(self) -> None:
        """Loads them, if there are any, in a pipeline of its own."""
        if not self._waiting:
            return
        given, session = self._given, self._given.session
        session.discard_left()  # a comparison of what the collection held before
        session.progress.step("load", total=given.rows, counter="chunks_loaded")
        with session.resumable("load", given.snapshot.id), self._begin() as begin:
            counters = beam_job.run(
                given.config,
                lambda pipeline: pipeline | "Write" >> begin,
                session,
                one_writer=given.connection.is_lite,
                reads=given.snapshot.bytes_of(self._names),
            )
        session.add_counters(counters)
        session.report.chunks.loaded += counters["chunks_loaded"]

    def before_comparison(self) -> Writes | None:
        """What loads them in the job that compares all rows; None where that is not a job, or loads nothing."""
        given, session = self._given, self._given.session
        if given.reads_here():
            return None
        if self._waiting:
            if given.reads_here(self._names):
                return None
            session.discard_left()
        elif session.left is None or session.left.step != LOAD_AND_VERIFY:
            return None
        return Writes(self._begin, given.rows, [self._ledger.load_id])

    @property
    def _names(self) -> list[str]:
        return [part.name for part in self._waiting]

    @contextlib.contextmanager
    def _begin(self) -> Iterator[beam.PTransform]:
        given = self._given
        flush_bytes = milvus.flush_step(given.connection, given.snapshot.total("bytes"))
        (give_back_at_once if flush_bytes else give_back)()
        load = LoadParts(
            given.config.collection, given.spec, self._ledger, flush_bytes, milvus.writers(given.connection)
        )
        with listed(self._waiting, LIVE_PARTS, given.session.uri("work/load.parquet")) as work:
            yield ("Parts" >> work) | ("LoadParts" >> load)
