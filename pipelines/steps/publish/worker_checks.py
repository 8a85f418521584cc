"""The comparisons of a collection with its snapshot as jobs on other machines, for more than `runner.local_below`.

What is compared, and how, is that of `transforms.milvus`, which a small collection gets in this process. Here the
launcher sums what workers wrote into the folder of the run. Where the rows are loaded on other machines too, the same
job loads them, and one of its workers finishes the collection before others compare it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import apache_beam as beam

from pipelines.run.session import Phase
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.part_jobs import PartJobs, Writes
from schemas.errors import CheckpointError
from schemas.milvus import VectorColumn
from transforms import milvus
from transforms.milvus.exact_answers import ExactAnswers
from transforms.milvus.recall import Asked
from transforms.milvus.rows.row_check import LISTED
from transforms.support.work_list import listed as work_list
from transforms.verify import foreign_rows
from transforms.verify.check_parts import CheckParts, checks_in
from transforms.verify.finished_collection import FinishCollection
from transforms.verify.foreign_rows import ID_RANGES, FindForeign, foreign_in, ranges_of
from transforms.verify.nearest_parts import NearestParts, QueriesIn
from transforms.verify.part_groups import PartGroup, SnapshotRows, groups_of

BORDERS = 64
"""Most parts whose ids determine the ranges in which ids are listed."""
Answers = dict[str, tuple[Asked, ExactAnswers]]


class WorkerChecks:
    """Compares a collection with a snapshot by jobs."""

    def __init__(self, given: CollectionRun) -> None:
        self._given = given
        self._rows = SnapshotRows(given.checkpoint, given.snapshot.name)
        self._jobs = PartJobs(given.session)

    def rows(
        self,
        columns: list[str],
        *,
        every_column: bool,
        listed: int | None = None,
        recalls: Sequence[VectorColumn] = (),
        writes: Writes | None = None,
    ) -> tuple[milvus.RowCheck, Answers]:
        """Compares all rows; see `transforms.milvus.verify_rows`.

        Args:
            recalls: vectors whose exact answers the same job finds, so that it reads the parts once.
            writes: what the same job writes before.

        Returns:
            What was found, and of each of these vectors the queries and their exact answers.
        """
        given = self._given
        with contextlib.ExitStack() as held:
            begin = held.enter_context(writes.begin()) if writes is not None else None

            def build(parts: beam.PCollection, groups: list[PartGroup], folder: str) -> None:
                if begin is not None:
                    parts = self._after(begin, parts, self._queries_in(folder, recalls))
                _ = parts | "CheckParts" >> self._check(self._rows, columns, folder, every_column=every_column)
                self._build_recalls(parts, groups, folder, recalls)

            def read(folder: str) -> tuple[milvus.RowCheck, Answers]:
                return _sum(checks_in(folder)), self._answers(folder, recalls)

            check, answers = self._jobs.run(
                build,
                read,
                groups_of(given.snapshot),
                of=[given.snapshot.id, given.spec.name, columns, every_column, *self._described(recalls)],
                before=None if writes is not None else lambda folder: self._ask(folder, recalls),
                writes=writes,
            )
        if check.expected != given.rows:
            raise CheckpointError(
                f"workers compared {check.expected} rows, and the snapshot has {given.rows}",
                "run the same command again",
            )
        if writes is not None:
            self._finish()
        check.total = milvus.count(given.connection, given.spec.name)
        most = LISTED if listed is None else listed
        if most > 0 and check.has_others():
            check.unexpected = self._foreign(min(most, check.unexpected_count))
            unnamed = check.unexpected_count > len(check.unexpected)
            if unnamed and (listed is None or listed > len(check.unexpected)):
                check.add(self._duplicates())
        return check, answers

    def written(self, positions: Sequence[int], folder: str, columns: list[str], writes: Writes) -> milvus.RowCheck:
        """Writes what a sync has to write, and compares all columns of these rows.

        Args:
            positions: of the parts of the snapshot that may have such rows.
            folder: of the delta.
        """
        given = self._given
        rows = SnapshotRows(given.checkpoint, given.snapshot.name, folder)
        with writes.begin() as begin:

            def build(parts: beam.PCollection, _: list[PartGroup], found: str) -> None:
                after = self._after(begin, parts, [])
                _ = after | "CheckParts" >> self._check(rows, columns, found, every_column=True)

            check = self._jobs.run(
                build,
                lambda found: _sum(checks_in(found)),
                groups_of(given.snapshot, positions),
                of=[given.snapshot.id, given.spec.name, columns],
                writes=writes,
            )
        self._finish()
        check.total = milvus.count(given.connection, given.spec.name)
        return check

    def recall(self, column: VectorColumn) -> tuple[Asked, ExactAnswers] | None:
        """The queries of a recall and their exact answers; None of a corpus without a row."""

        def build(parts: beam.PCollection, groups: list[PartGroup], folder: str) -> None:
            self._build_recalls(parts, groups, folder, [column])

        given = self._given
        found = self._jobs.run(
            build,
            lambda folder: self._answers(folder, [column]),
            groups_of(given.snapshot),
            of=[given.snapshot.id, given.spec.name, "recall", *self._described([column])],
            before=lambda folder: self._ask(folder, [column]),
        )
        return found.get(column.name)

    def _after(self, begin: beam.PTransform, parts: beam.PCollection, queries: Sequence[QueriesIn]) -> beam.PCollection:
        """The parts, once everything is written and a worker has finished the collection."""
        given = self._given
        finish = FinishCollection(
            given.config.collection, given.spec, self._rows, tuple(queries), given.config.verify.sample
        )
        return parts | "AfterFinish" >> beam.WaitOn(parts.pipeline | "Write" >> begin | "FinishCollection" >> finish)

    def _finish(self) -> None:
        """Repeats what a worker did: the server may have been started again since."""
        with Phase(self._given.session, "index"):
            milvus.finish(self._given.connection, self._given.spec)

    def _check(
        self,
        rows: SnapshotRows,
        columns: list[str],
        folder: str,
        *,
        every_column: bool = False,
        duplicates: bool = False,
    ) -> CheckParts:
        given = self._given
        readers = milvus.writers(given.connection)
        return CheckParts(given.config.collection, given.spec, rows, columns, folder, readers, every_column, duplicates)

    def _ask(self, folder: str, columns: Sequence[VectorColumn]) -> None:
        """Searches through the index, and writes queries and hits for the workers."""
        given = self._given
        rows = self._rows.of(given.snapshot)
        for queries in self._queries_in(folder, columns):
            queries.ask(given.connection, given.spec, rows, given.config.verify.sample)

    def _queries_in(self, folder: str, columns: Sequence[VectorColumn]) -> list[QueriesIn]:
        """Where the queries of vectors are; a collection without a row has none."""
        rows = self._given.rows
        some = rows and self._given.config.verify.sample
        return [QueriesIn(folder, column, rows) for column in columns if some]

    def _described(self, columns: Sequence[VectorColumn]) -> list[Any]:
        """What a recall depends on, in addition to the rows."""
        return [self._given.config.verify.sample, *(asdict(column) for column in columns)]

    def _build_recalls(
        self, parts: beam.PCollection, groups: list[PartGroup], folder: str, columns: Sequence[VectorColumn]
    ) -> None:
        for queries in self._queries_in(folder, columns):
            _ = parts | f"Nearest {queries.column.name}" >> NearestParts(self._rows, queries, len(groups))

    def _answers(self, folder: str, columns: Sequence[VectorColumn]) -> Answers:
        return {one.column.name: (one.read(), one.exact()) for one in self._queries_in(folder, columns)}

    def _foreign(self, wanted: int) -> list[str]:
        """The first ids of rows that no part has."""
        given = self._given
        total = milvus.count(given.connection, given.spec.name)
        count = given.snapshot.parts.num_rows
        some = range(0, count, max(1, count // BORDERS))
        sample = [
            row_id
            for position in some
            for row_id in given.checkpoint.read_live(given.snapshot.live_part(position), ["id"])
            .column("id")
            .to_pylist()
        ]
        ranges = ranges_of(sample, total)
        buckets = 1 + (total + given.rows) // foreign_rows.ROWS_OF_A_RANGE
        uri = given.session.uri("work/ids.parquet")
        readers = milvus.writers(given.connection)
        with work_list(ranges, ID_RANGES, uri) as work:

            def build(parts: beam.PCollection, _: list[PartGroup], folder: str) -> None:
                config = given.config.collection
                find = FindForeign(config, given.spec, self._rows, work, buckets, folder, readers, wanted)
                _ = parts | "FindForeign" >> find

            found = self._jobs.run(build, foreign_in, groups_of(given.snapshot))
        return found[:wanted]

    def _duplicates(self) -> milvus.RowCheck:
        """Ids that the collection has more than once; see `transforms.milvus.find_duplicates`."""

        def build(parts: beam.PCollection, _: list[PartGroup], folder: str) -> None:
            _ = parts | "CheckParts" >> self._check(self._rows, ["id"], folder, duplicates=True)

        return self._jobs.run(build, lambda folder: _sum(checks_in(folder)), groups_of(self._given.snapshot))


def _sum(checks: Sequence[milvus.RowCheck]) -> milvus.RowCheck:
    total = milvus.RowCheck()
    for check in checks:
        total.add(check)
    return total
