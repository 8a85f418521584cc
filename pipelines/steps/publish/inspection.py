"""Whether a collection is right: its rows against its snapshot's, recall, and the gate that both must pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from pipelines.run.session import Phase
from pipelines.steps.collection.row_sample import sample_rows
from pipelines.steps.collection.served import open_for_search
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.part_jobs import Writes
from pipelines.steps.publish.worker_checks import WorkerChecks
from schemas.config.encoder import VECTOR
from schemas.errors import GateError
from schemas.milvus import VectorColumn
from schemas.run_report import LOAD_AND_VERIFY, MeasuredIndex
from transforms import milvus
from transforms.checkpoint import iterate_parts
from transforms.milvus.exact_answers import ExactAnswers
from transforms.milvus.nearest import effective_parameters
from transforms.milvus.recall import Asked, wanted
from transforms.milvus.rows.row_check import ALL_COLUMNS, COMPARED, IDS_AND_HASHES, SAMPLED
from transforms.verify.part_groups import SnapshotRows

GRAPHS = ("HNSW", "AUTOINDEX")
"""Index types whose search walks a graph; AUTOINDEX is one."""


class Inspection:
    """A collection, compared with the snapshot that it is to hold."""

    def __init__(self, given: CollectionRun) -> None:
        self._given = given
        self._session = given.session
        self._spec = given.spec
        self._elsewhere = WorkerChecks(given)
        self._answers: dict[str, tuple[Asked, ExactAnswers]] = {}
        """Of each vector, what the job of the last comparison found in addition for its recall."""
        self.similarities: dict[str, Sequence[float]] = {}
        """Of each vector, where recall was measured; see `transforms.milvus.Recall`."""

    def check_rows(
        self,
        listed: int | None = None,
        compared: str = ALL_COLUMNS,
        *,
        recall: bool = False,
        writes: Writes | None = None,
    ) -> milvus.RowCheck:
        """Compares the collection with the snapshot row by row, and puts the counts into the report.

        From `runner.local_below` on, workers do that.

        Args:
            listed: see `transforms.milvus.verify_rows`.
            compared: all columns; or ids and hashes; or sampled, which compares those, and all columns of some rows,
                and all columns of all rows where one of these differs.
            recall: says that the gate is about to measure the recall, so that one job does both.
            writes: what the job of the workers writes before it compares; then it finishes the collection as well.
        """
        given = self._given
        every_column = compared == ALL_COLUMNS
        recalls = given.spec.sent_vectors if recall else ()
        self._answers = {}
        if writes is not None:
            self._begin_job(writes, given.rows)
            check, self._answers = self._elsewhere.rows(
                self._columns(every_column), every_column=every_column, listed=listed, recalls=recalls, writes=writes
            )
            self._note(check, compared)
            return check
        self._session.progress.step("verify", total=given.rows, counter=COMPARED)
        with Phase(self._session, "verify"):
            open_for_search(given.connection, self._spec.name)
            columns = self._columns(every_column)
            if given.reads_here():
                check = self._compare(self._parts(columns), listed, every_column=every_column)
                unnamed = check.unexpected_count > len(check.unexpected)
                if unnamed and (listed is None or listed > len(check.unexpected)):
                    milvus.find_duplicates(given.connection, self._spec.name, self._parts(["id"]), check)
            else:
                check, self._answers = self._elsewhere.rows(
                    columns, every_column=every_column, listed=listed, recalls=recalls
                )
        if compared == SAMPLED and not self.check_sample().clean:
            return self.check_rows(listed, recall=recall)
        self._note(check, compared)
        return check

    def check_sample(self) -> milvus.RowCheck:
        """Compares all columns of some rows, which follow from the run's id."""
        given = self._given
        with Phase(self._session, "verify"):
            open_for_search(given.connection, self._spec.name)
            columns = self._columns()
            sampled = sample_rows(given.checkpoint, given.snapshot, self._session.run_id)
            check = self._compare((rows.select(columns) for rows in sampled), 0, every_column=True)
        self._session.report.verify.compared = SAMPLED
        return check

    def check_written(self, positions: Sequence[int], folder: str, *, writes: Writes | None = None) -> milvus.RowCheck:
        """Compares all columns of the rows that a sync has written.

        Args:
            positions: of the snapshot's parts that may have such rows.
            folder: of the delta.
            writes: the job that writes them and compares them then; without it they are compared in this process.
        """
        given = self._given
        if writes is not None:
            self._begin_job(writes, writes.rows)
            return self._elsewhere.written(positions, folder, self._columns(), writes)
        self._session.progress.step("verify")
        with Phase(self._session, "verify"):
            rows = SnapshotRows(given.checkpoint, given.snapshot.name, folder).of(given.snapshot)
            return self._compare((part for _, part in rows.of(positions, self._columns())), 0, every_column=True)

    def _begin_job(self, writes: Writes, compared: int) -> None:
        self._session.progress.step(LOAD_AND_VERIFY, total=writes.rows, counter="chunks_loaded")
        self._session.progress.then(total=compared, counter=COMPARED)

    def gate(self, check: milvus.RowCheck, *, recall: bool) -> None:
        """Raises GateError where rows are not those of the snapshot, or recall is too low."""
        published = self._session.report.verify.published
        problems = check.problems()
        advice = "fix the cause and run the same command again"
        if published:
            advice = "vecbeam verify --repair restores these rows from the checkpoint, load --rebuild all of them"
        if recall and not problems:
            worst = self._measure_recall()
            least = self._given.config.verify.recall_at_10
            if not self._given.rows:
                problems = ["it is to hold no row, so there is no recall to measure"]
            elif worst is not None and worst[1].at_10 < least:
                column, measured = worst
                of = "" if column.name == VECTOR else f" of {column.name}"
                problems = [f"recall@10{of} is {measured.at_10:.4f}, verify.recall_at_10 is {least}"]
                cause, advice = self._of_low_recall(column, measured)
                problems += [cause] if cause else []
        if problems:
            stays = "" if published else f"; the alias {self._spec.alias} was not moved"
            raise GateError(f"{self._spec.name} did not pass: {'; '.join(problems)}{stays}", advice)

    def _compare(self, parts: Iterator[pa.Table], listed: int | None, *, every_column: bool) -> milvus.RowCheck:
        spec = self._spec if every_column else None
        return milvus.verify_rows(self._given.connection, self._spec.name, parts, listed, spec)

    def _columns(self, every_column: bool = True) -> list[str]:
        """The columns that the configuration, the collection and the parts of the snapshot have, or id and hash."""
        if not every_column:
            return ["id", "content_hash"]
        given = self._given
        state = milvus.state(given.connection, self._spec.name)
        has = {column.name for column in state.columns} if state else set()
        if given.snapshot.part_names:
            has &= set(given.checkpoint.part_columns(given.snapshot.part_names[0]))
        return [column.name for column in milvus.columns_of(self._spec) if column.name in has]

    def _note(self, check: milvus.RowCheck, compared: str) -> None:
        verify = self._session.report.verify
        verify.expected, verify.found = check.expected, check.found
        verify.missing, verify.unexpected = check.missing_count, check.unexpected_count
        verify.stale, verify.damaged, verify.columns = check.stale_count, check.damaged_count, dict(check.columns)
        verify.compared = compared

    def _of_low_recall(self, column: VectorColumn, measured: milvus.Recall) -> tuple[str, str]:
        """The cause of a low recall, if it is known, and the remedy."""
        kind = column.index_type
        if self._spec.promise is not None and not column.own_index:
            return "", "vecbeam load --rebuild chooses an index for the rows as they are now"
        if self._session.report.verify.compared == IDS_AND_HASHES:
            return "vectors were not compared", "vecbeam verify without --quick tells whether they are damaged"
        if kind in GRAPHS and measured.many_are_equal:
            return (
                f"{measured.equal_share:.0%} of the sampled rows have a vector that more than ten rows have, one of "
                f"them {measured.most_equal:,} rows: past so many equal vectors the graph of {kind} does not reach all "
                "others, whatever its parameters",
                "choose collection.index: {type: FLAT} or {type: IVF_FLAT}, and run vecbeam reindex; or leave "
                "duplicates out of the corpus",
            )
        if kind == "FLAT":
            return "FLAT searches every row", "vecbeam load --rebuild makes another collection from the checkpoint"
        wider = {"IVF_FLAT": "nprobe", "IVF_SQ8": "nprobe"}.get(kind, "ef")
        return (
            "",
            f"raise collection.search.{wider} and run the same command again, or the build parameters of "
            "collection.index and run vecbeam reindex",
        )

    def _measure_recall(self) -> tuple[VectorColumn, milvus.Recall] | None:
        """The recall of each vector's index; returns that of the worst, which is the report's.

        Vectors that Milvus computes are left out: no part has them, and an inverted index ranks every row that has a
        word of the query. None if there is no other, or no row.
        """
        found: dict[str, tuple[VectorColumn, milvus.Recall]] = {}
        rows = self._given.rows
        with Phase(self._session, "verify"):
            for column in self._spec.sent_vectors:
                measured = self._recall_of(column, rows)
                if measured is not None:
                    found[column.name] = (column, measured)
        if not found:
            return None
        verify = self._session.report.verify
        if len(found) > 1:
            verify.recalls = {name: round(recall.at_10, 4) for name, (_, recall) in found.items()}
        self._session.report.measured_indexes += [
            MeasuredIndex(
                vector=name if len(found) > 1 else "",
                type=column.index_type,
                parameters=dict(column.build_parameters),
                search=effective_parameters(column.index_type, column.search_parameters, sum(wanted(rows))),
                recall_at_10=round(recall.at_10, 4),
                rows=rows,
            )
            for name, (column, recall) in found.items()
        ]
        self.similarities = {name: recall.similarities for name, (_, recall) in found.items()}
        worst = min(found.values(), key=lambda one: one[1].at_10)
        verify.recall_at_10 = round(worst[1].at_10, 4)
        return worst

    def _recall_of(self, column: VectorColumn, rows: int) -> milvus.Recall | None:
        given = self._given
        if given.reads_here():
            return milvus.measure_recall(
                given.connection,
                self._spec,
                partial(self._parts, ["id", column.name]),
                rows,
                given.config.verify.sample,
                column=column,
            )
        found = self._answers.get(column.name) or self._elsewhere.recall(column)
        return found[0].recall(found[1]) if found is not None else None

    def _parts(self, columns: list[str]) -> Iterator[pa.Table]:
        return iterate_parts(self._given.checkpoint, self._given.snapshot.live_parts, columns)
