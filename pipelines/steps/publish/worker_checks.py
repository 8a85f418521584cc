"""The comparisons of a collection with its snapshot as jobs on other machines, for more than `runner.local_below`.

What is compared, and how, is that of `transforms.milvus`, which a small collection gets in this process. Here the
launcher sums what workers wrote into the folder of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.run.session import Session
from pipelines.steps.publish.part_jobs import PartJobs
from schemas.errors import CheckpointError
from schemas.milvus import CollectionSpec, VectorColumn
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.milvus.exact_answers import ExactAnswers
from transforms.milvus.recall import TOP, Asked, ask
from transforms.milvus.rows.row_check import LISTED
from transforms.support.work_list import listed as work_list
from transforms.verify import foreign_rows
from transforms.verify.check_parts import CheckParts, checks_in
from transforms.verify.foreign_rows import ID_RANGES, FindForeign, foreign_in, ranges_of
from transforms.verify.nearest_parts import NearestParts, QueriesIn
from transforms.verify.part_groups import PartGroup, SnapshotRows, groups_of

BORDERS = 64
"""Most parts whose ids determine the ranges in which ids are listed."""
Answers = dict[str, tuple[Asked, ExactAnswers]]


class WorkerChecks:
    """Compares a collection with a snapshot by jobs.

    Args:
        spec: the collection, by its name in Milvus.
        connection: to Milvus, open.
    """

    def __init__(
        self,
        session: Session,
        checkpoint: Checkpoint,
        snapshot: Snapshot,
        spec: CollectionSpec,
        connection: milvus.Milvus,
    ) -> None:
        self._session = session
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._spec = spec
        self._connection = connection
        self._jobs = PartJobs(session)

    def rows(
        self,
        columns: list[str],
        *,
        every_column: bool,
        listed: int | None = None,
        recalls: Sequence[VectorColumn] = (),
    ) -> tuple[milvus.RowCheck, Answers]:
        """Compares all rows; see `transforms.milvus.verify_rows`.

        Args:
            recalls: vectors whose exact answers the same job finds, so that it reads the parts once.

        Returns:
            What was found, and of each of these vectors the queries and their exact answers.
        """
        rows = SnapshotRows(self._checkpoint, self._snapshot.name)

        def build(parts: beam.PCollection, groups: list[PartGroup], folder: str) -> None:
            _ = parts | "CheckParts" >> self._check(rows, columns, folder, every_column=every_column)
            self._build_recalls(parts, rows, groups, folder, recalls)

        def read(folder: str) -> tuple[milvus.RowCheck, Answers]:
            return _sum(checks_in(folder)), self._answers(folder, recalls)

        check, answers = self._jobs.run(
            build,
            read,
            groups_of(self._snapshot),
            of=[self._snapshot.id, self._spec.name, columns, every_column, *self._described(recalls)],
            before=lambda folder: self._ask(folder, recalls),
        )
        if check.expected != self._snapshot.total("rows"):
            raise CheckpointError(
                f"workers compared {check.expected} rows, and the snapshot has {self._snapshot.total('rows')}",
                "run the same command again",
            )
        check.total = milvus.count(self._connection, self._spec.name)
        most = LISTED if listed is None else listed
        if most > 0 and check.has_others():
            check.unexpected = self._foreign(rows, min(most, check.unexpected_count))
            unnamed = check.unexpected_count > len(check.unexpected)
            if unnamed and (listed is None or listed > len(check.unexpected)):
                check.add(self._duplicates(rows))
        return check, answers

    def written(self, snapshot: Snapshot, positions: Sequence[int], folder: str, columns: list[str]) -> milvus.RowCheck:
        """Compares all columns of the rows that a sync wrote.

        Args:
            snapshot: the one that it brought the collection to.
            positions: of its parts with such rows.
            folder: of the delta.
        """
        rows = SnapshotRows(self._checkpoint, snapshot.name, folder)

        def build(parts: beam.PCollection, _: list[PartGroup], found: str) -> None:
            _ = parts | "CheckParts" >> self._check(rows, columns, found, every_column=True)

        check = self._jobs.run(build, lambda found: _sum(checks_in(found)), groups_of(snapshot, positions))
        check.total = milvus.count(self._connection, self._spec.name)
        return check

    def recall(self, column: VectorColumn) -> tuple[Asked, ExactAnswers] | None:
        """The queries of a recall and their exact answers; None of a corpus without a row."""

        def build(parts: beam.PCollection, groups: list[PartGroup], folder: str) -> None:
            self._build_recalls(parts, SnapshotRows(self._checkpoint, self._snapshot.name), groups, folder, [column])

        found = self._jobs.run(
            build,
            lambda folder: self._answers(folder, [column]),
            groups_of(self._snapshot),
            of=[self._snapshot.id, self._spec.name, "recall", *self._described([column])],
            before=lambda folder: self._ask(folder, [column]),
        )
        return found.get(column.name)

    def _check(
        self,
        rows: SnapshotRows,
        columns: list[str],
        folder: str,
        *,
        every_column: bool = False,
        duplicates: bool = False,
    ) -> CheckParts:
        readers = milvus.writers(self._connection)
        config = self._session.config.collection
        return CheckParts(config, self._spec, rows, columns, folder, readers, every_column, duplicates)

    def _ask(self, folder: str, columns: Sequence[VectorColumn]) -> None:
        """Searches through the index, and writes queries and hits for the workers."""
        for column in columns:
            asked = ask(
                self._connection,
                self._spec,
                partial(self._rows_at, ["id", column.name]),
                self._snapshot.total("rows"),
                self._session.config.verify.sample,
                column=column,
            )
            if asked is not None:
                self._queries_in(folder, column).write(asked)

    def _queries_in(self, folder: str, column: VectorColumn) -> QueriesIn:
        return QueriesIn(folder, column, min(TOP, self._snapshot.total("rows")))

    def _described(self, columns: Sequence[VectorColumn]) -> list[Any]:
        """What a recall depends on, in addition to the rows."""
        return [self._session.config.verify.sample, *(asdict(column) for column in columns)]

    def _build_recalls(
        self,
        parts: beam.PCollection,
        rows: SnapshotRows,
        groups: list[PartGroup],
        folder: str,
        columns: Sequence[VectorColumn],
    ) -> None:
        for column in columns:
            queries = self._queries_in(folder, column)
            if queries.exists:
                _ = parts | f"Nearest {column.name}" >> NearestParts(rows, queries, len(groups))

    def _answers(self, folder: str, columns: Sequence[VectorColumn]) -> Answers:
        queries = {column.name: self._queries_in(folder, column) for column in columns}
        return {name: (one.read(), one.exact()) for name, one in queries.items() if one.exists}

    def _rows_at(self, columns: list[str], chosen: NDArray[np.int64]) -> pa.Table:
        """Rows by their positions among all live rows: only the parts that have one are read."""
        ends = np.cumsum(np.array(self._snapshot.parts.column("rows").to_pylist(), np.int64))
        parts = np.searchsorted(ends, chosen, side="right")
        starts = np.concatenate([[0], ends])
        return pa.concat_tables(
            self._checkpoint.read_live(self._snapshot.live_part(int(part)), columns).take(
                pa.array(chosen[parts == part] - starts[part])
            )
            for part in np.unique(parts)
        )

    def _foreign(self, rows: SnapshotRows, wanted: int) -> list[str]:
        """The first ids of rows that no part has."""
        total = milvus.count(self._connection, self._spec.name)
        count = self._snapshot.parts.num_rows
        some = range(0, count, max(1, count // BORDERS))
        sample = [
            row_id
            for position in some
            for row_id in self._checkpoint.read_live(self._snapshot.live_part(position), ["id"])
            .column("id")
            .to_pylist()
        ]
        ranges = ranges_of(sample, total)
        buckets = 1 + (total + self._snapshot.total("rows")) // foreign_rows.ROWS_OF_A_RANGE
        uri = self._session.uri("work/ids.parquet")
        readers = milvus.writers(self._connection)
        with work_list(ranges, ID_RANGES, uri) as work:

            def build(parts: beam.PCollection, _: list[PartGroup], folder: str) -> None:
                config = self._session.config.collection
                find = FindForeign(config, self._spec, rows, work, buckets, folder, readers, wanted)
                _ = parts | "FindForeign" >> find

            found = self._jobs.run(build, foreign_in, groups_of(self._snapshot))
        return found[:wanted]

    def _duplicates(self, rows: SnapshotRows) -> milvus.RowCheck:
        """Ids that the collection has more than once; see `transforms.milvus.find_duplicates`."""

        def build(parts: beam.PCollection, _: list[PartGroup], folder: str) -> None:
            _ = parts | "CheckParts" >> self._check(rows, ["id"], folder, duplicates=True)

        return self._jobs.run(build, lambda folder: _sum(checks_in(folder)), groups_of(self._snapshot))


def _sum(checks: Sequence[milvus.RowCheck]) -> milvus.RowCheck:
    total = milvus.RowCheck()
    for check in checks:
        total.add(check)
    return total
