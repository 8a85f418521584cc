"""Snapshot to published collection: create, load, index, verify, gate, alias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
import pyarrow as pa

from pipelines import beam_runner
from pipelines.alias import link
from pipelines.limits import Standing, check_rows_at_all, check_shrinking, check_unexpected, excess, remedy
from pipelines.serving import collection_spec, find_served, misfits, open_for_search
from pipelines.session import Phase, Session
from schemas.collection import STATE_READY, CollectionSpec
from schemas.errors import CollectionError, GateError, RejectsError
from schemas.identity import Space
from transforms import collection as milvus
from transforms import metrics
from transforms.checkpoint import Checkpoint, LivePart, Snapshot, iterate_parts
from transforms.load import Ledger, LoadParts
from transforms.memory import give_back, give_back_at_once

REPAIRS = 3
EVERY_ID = 1 << 40


def publish(
    session: Session,
    checkpoint: Checkpoint,
    snapshot: Snapshot,
    space: Space,
    stands: Standing,
    *,
    allow_deletes: bool = False,
) -> None:
    """Makes the collection of a snapshot and moves the alias to it. Does nothing where it is served already.

    Args:
        stands: what is served.
        allow_deletes: lifts `corpus.max_deleted`.

    Raises:
        GateError: where rows or recall are not right, or many fewer items than are served; the alias stays where it
            was.
        RejectsError: where more was rejected or dropped than allowed. A first collection is published all the same;
            a served one is not replaced. Where there is not one row, either.
    """
    check_rows_at_all(snapshot, stands)
    if not allow_deletes:
        check_shrinking(snapshot.total("items"), stands, session.config.corpus.max_deleted)
    with milvus.connected(session.config.collection) as client:
        spec = _named(client, session, collection_spec(session.config, snapshot, space))
        Publication(session, checkpoint, snapshot, spec, client).run()


def _named(client: Any, session: Session, spec: CollectionSpec) -> CollectionSpec:
    """The collection that is served, where it is what is wanted; else one whose name is free or that was begun."""
    served = find_served(client, session.config)
    if served is not None and served.state == STATE_READY and served.target_id is None:
        same = (served.space_id, served.snapshot_id) == (spec.space_id, spec.snapshot_id)
        if same and not misfits(served, spec):
            return replace(spec, name=served.name)
    for turn in range(1, 1000):
        name = spec.name if turn == 1 else f"{spec.name}_{turn}"
        found = milvus.state(client, name)
        # One of that name may have been brought to another snapshot since.
        if found is None or found.space_id is None or found.snapshot_id == spec.snapshot_id:
            return replace(spec, name=name)
    raise CollectionError(f"Milvus has a thousand collections named {spec.name}", "remove some with vecbeam gc")


class Publication:
    """A collection on its way from a snapshot to the alias.

    Args:
        spec: the collection, by its name in Milvus.
        client: of pymilvus, open.
    """

    def __init__(
        self, session: Session, checkpoint: Checkpoint, snapshot: Snapshot, spec: CollectionSpec, client: Any
    ) -> None:
        self._session = session
        self._config = session.config
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._spec = spec
        self._client = client
        report = session.report
        report.collection, report.space, report.snapshot = spec.name, snapshot.space_id, snapshot.id

    def run(self) -> None:
        """Creates, loads, indexes, verifies and publishes; what is done already is not done again."""
        spec, client = self._spec, self._client
        milvus.check_free(client, spec)
        state = milvus.state(client, spec.name)
        if state is None:
            with Phase(self._session, "load"):
                milvus.create(client, spec, self._session.run_id)
            state = milvus.state(client, spec.name)
        if state is None or state.load_id is None:
            raise CollectionError(
                f"the collection {spec.name} vanished while it was made", "run the same command again"
            )
        ledger = Ledger(self._checkpoint, spec.name, state.load_id)
        fresh = state.state != STATE_READY
        if fresh and ledger.import_broke_off:
            # Which of its rows are in, nobody knows, and an import of them again would double them.
            self._session.progress.note(f"an import into {spec.name} broke off: making the collection anew")
            milvus.await_imports(client, self._config.collection, spec.name)
            milvus.drop(client, spec.name)
            ledger.close()
            self.run()
            return
        if fresh:
            if self._config.collection.load == "import":
                self._import(ledger)
            self._load(ledger, self._snapshot.live_parts)
            self.index()
        check = self.check_rows()
        if check.part_indexes_missing:
            # Someone deleted or changed rows, or the server lost them: the checkpoint has them.
            check = self._load_again(ledger, check)
        self.gate(check, recall=fresh)
        self._publish(ledger, fresh)

    def repair(self, *, everything: bool = False, allow_deletes: bool = False) -> None:
        """Brings a served collection to its snapshot, row by row, from the checkpoint.

        Args:
            everything: upserts all rows first, whose metadata may differ though their text is the same.
            allow_deletes: lifts `corpus.max_deleted`.

        Raises:
            GateError: where more rows would be deleted than allowed, and nothing was written; or where it is still not
                right after three rounds.
        """
        ledger = Ledger(self._checkpoint, self._spec.name, f"repair-{self._session.run_id}")
        check = self.check_rows(listed=EVERY_ID)
        check_unexpected(
            check.unexpected_count,
            check.total,
            self._spec.name,
            self._config.corpus.max_deleted,
            allowed=allow_deletes,
        )
        if everything:
            self._load(ledger, self._snapshot.live_parts)
            self.index()
            check = self.check_rows(listed=EVERY_ID)
        for _ in range(REPAIRS):
            if check.clean:
                break
            if check.unexpected:
                self._session.progress.note(f"deleting {len(check.unexpected)} unexpected rows of {self._spec.name}")
                milvus.delete(self._client, self._config.collection, self._spec.name, check.unexpected)
                self._session.report.chunks.deleted += len(check.unexpected)
            check = self._load_again(ledger, check, listed=EVERY_ID)
        ledger.close()
        self.gate(check, recall=False)

    def _load_again(self, ledger: Ledger, check: milvus.RowCheck, listed: int | None = None) -> milvus.RowCheck:
        damaged = [self._snapshot.live_part(index) for index in check.part_indexes_missing]
        if damaged:
            self._session.progress.note(f"{len(damaged)} parts are not whole in {self._spec.name}: loading them again")
            ledger.forget([part.name for part in damaged])
            self._load(ledger, damaged)
        self.index()
        return self.check_rows(listed=listed)

    def _load(self, ledger: Ledger, parts: list[LivePart]) -> None:
        acknowledged = ledger.acknowledged()
        waiting = [part for part in parts if part.name not in acknowledged]
        if not waiting:
            return
        self._session.progress.step("load", total=self._snapshot.total("rows"), counter="chunks_loaded")
        flush_bytes = milvus.flush_step(self._client, self._snapshot.total("bytes"))
        (give_back_at_once if flush_bytes else give_back)()

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Parts" >> beam.Create(waiting)
                | "Spread" >> beam.Reshuffle()
                | "LoadParts" >> LoadParts(self._config.collection, self._spec, ledger, flush_bytes)
            )

        counters = beam_runner.run(self._config, build, self._session, one_writer=milvus.is_lite(self._client))
        self._session.add_counters(counters)
        self._session.report.chunks.loaded += counters["chunks_loaded"]

    def _import(self, ledger: Ledger) -> None:
        """Lets the server read the parts that it can take as they lie; the rest is left to be upserted."""
        acknowledged = ledger.acknowledged()
        parts = [part for part in self._snapshot.live_parts if part.name not in acknowledged and self._as_it_lies(part)]
        if not parts:
            return
        self._session.progress.step("import", total=self._snapshot.total("rows"), counter="chunks_loaded")
        ledger.begin_import()

        def finished(at: int, rows: int) -> None:
            ledger.acknowledge(parts[at].name, rows)
            metrics.count("chunks_loaded", rows)
            self._session.report.chunks.loaded += rows

        with Phase(self._session, "load"):
            uris = [self._checkpoint.part_uri(part.name) for part in parts]
            milvus.import_files(self._client, self._config.collection, self._spec.name, uris, finished)
        ledger.end_import()

    def _as_it_lies(self, part: LivePart) -> bool:
        """Whether a part's file holds just what the collection is to hold: no dead row, no null, the same columns."""
        metadata = [column.name for column in self._spec.metadata]
        columns = {column.name for column in milvus.columns_of(self._spec)}
        if len(part.dead) or set(self._checkpoint.part_columns(part.name)) != columns:
            return False
        table = self._checkpoint.read_part(part.name, metadata) if metadata else None
        return table is None or not any(table.column(name).null_count for name in metadata)

    def index(self) -> None:
        """Flushes, builds the index where it lacks, and waits until the collection can be searched by it."""
        self._session.progress.step("index")
        give_back()
        with Phase(self._session, "index"):
            milvus.finish(self._client, self._config.collection, self._spec)
        give_back()

    def _parts(self, columns: list[str]) -> Iterator[pa.Table]:
        return iterate_parts(self._checkpoint, self._snapshot.live_parts, columns)

    def check_rows(self, listed: int | None = None) -> milvus.RowCheck:
        """Compares the collection with the snapshot row by row, and puts the counts into the report."""
        self._session.progress.step("verify")
        with Phase(self._session, "verify"):
            open_for_search(self._client, self._config, self._spec.name)
            check = milvus.verify_rows(
                self._client, self._config.collection, self._spec.name, self._parts(["id", "content_hash"]), listed
            )
        self._note(check)
        return check

    def _note(self, check: milvus.RowCheck) -> None:
        verify = self._session.report.verify
        verify.expected, verify.found = check.expected, check.found
        verify.missing, verify.unexpected = check.missing_count, check.unexpected_count
        verify.stale = check.stale_count

    def gate(self, check: milvus.RowCheck, *, recall: bool) -> None:
        """Raises GateError where rows are not those of the snapshot, or recall is too low."""
        kinds = (
            (check.missing_count, "missing", check.missing),
            (check.unexpected_count, "unexpected", check.unexpected),
            (check.stale_count, "stale", check.stale),
        )
        problems = [f"{number} rows {kind} (first: {', '.join(ids[:3])})" for number, kind, ids in kinds if number]
        remedy = f"the alias {self._spec.alias} was not moved; mend the cause and run the same command again"
        if problems and self._session.report.verify.published:
            remedy = "vecbeam verify --repair mends rows from the checkpoint"
        if recall and not problems:
            measured = self._measure_recall()
            if measured < self._config.verify.recall_at_10:
                problems.append(
                    f"recall@10 is {measured:.4f}, verify.recall_at_10 asks for {self._config.verify.recall_at_10}: "
                    "raise the index's build or search parameters"
                )
        if problems:
            raise GateError(f"{self._spec.name} did not pass: {'; '.join(problems)}", remedy)

    def _measure_recall(self) -> float:
        with Phase(self._session, "verify"):
            measured = milvus.measure_recall(
                self._client,
                self._config.collection,
                self._spec,
                lambda: self._parts(["id", "vector"]),
                self._snapshot.total("rows"),
                self._config.verify.sample,
            )
        self._session.report.verify.recall_at_10 = round(measured, 4)
        return measured

    def _publish(self, ledger: Ledger, fresh: bool) -> None:
        spec, client = self._spec, self._client
        served = milvus.served(client, spec.alias)
        over = excess(self._snapshot, self._config)
        if over and served not in (None, spec.name):
            raise RejectsError(
                f"{over}; {spec.name} is whole and verified, but the alias {spec.alias} stays at {served}",
                remedy(over, lossless=False),
            )
        with Phase(self._session, "index"):
            if fresh:
                milvus.set_ready(client, spec.name, served if served and served != spec.name else "")
            else:
                link(client, spec.name, served)
            milvus.publish(client, spec.alias, spec.name)
            if served != spec.name:
                self._session.moved(served, spec.name)
            ledger.close()
        self._session.report.verify.published = True
        if over:
            raise RejectsError(f"{over}; the good rows are published as {spec.alias}", remedy(over))
