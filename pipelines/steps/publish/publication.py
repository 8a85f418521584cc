"""Snapshot to published collection: create, load, index, verify, gate, alias."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pipelines.run.jobs import beam_job
from pipelines.run.session import Phase, Session
from pipelines.steps.collection.served import find_served, misfits
from pipelines.steps.judgement.limits import (
    check_known,
    check_rows_at_all,
    check_shrinking,
    check_unexpected,
    excess,
    remedy,
)
from pipelines.steps.judgement.standing import Standing
from pipelines.steps.judgement.vector_limits import check_vectors_of
from pipelines.steps.publish.import_step import ImportStep
from pipelines.steps.publish.index_candidates import choose
from pipelines.steps.publish.index_promise import IndexPromise
from pipelines.steps.publish.inspection import Inspection
from pipelines.steps.quality.quality_gate import check_quality
from schemas.errors import CollectionError, RejectsError
from schemas.layout import Layout
from schemas.milvus import STATE_LOADING, STATE_READY, CollectionSpec
from schemas.milvus.collection_spec import PROPERTY_SIMILARITIES
from transforms import milvus
from transforms.checkpoint import Checkpoint, LivePart, Snapshot
from transforms.checkpoint.snapshot import LIVE_PARTS
from transforms.explore.candidate import Candidate
from transforms.load.specification import collection_spec
from transforms.load.upsert_parts import Ledger, LoadParts
from transforms.milvus.alias import link
from transforms.milvus.rows.row_check import ALL_COLUMNS, SAMPLED
from transforms.support.memory import give_back, give_back_at_once
from transforms.support.work_list import listed

REPAIRS = 3
EVERY_ID = 1 << 40


def publish(
    session: Session,
    checkpoint: Checkpoint,
    snapshot: Snapshot,
    layout: Layout,
    stands: Standing,
    *,
    allow_deletes: bool = False,
    rebuild: bool = False,
    corpus_was_read: bool = True,
) -> None:
    """Makes the collection of a snapshot and moves the alias to it. Does nothing where it is served already.

    Args:
        `stands`: what is served.
        allow_deletes: lifts `corpus.max_deleted`.
        rebuild: builds a new collection, whatever is served. It resumes one that an earlier rebuild began.
        corpus_was_read: whether the snapshot is the corpus as it is now, and not just what the checkpoint holds.

    Raises:
        GateError: if rows, recall or answers are not right, or many fewer items than are served; the alias stays
            where it was.
        RejectsError: if more was rejected or dropped than allowed. A first collection is published anyway;
            a served one is not replaced. A snapshot without a row is never published.
    """
    check_rows_at_all(snapshot, stands)
    if not allow_deletes:
        if not corpus_was_read:
            check_known(snapshot, stands)
        check_shrinking(snapshot.total("items"), stands, session.config.corpus.max_deleted, rows=snapshot.total("rows"))
    if stands.snapshot != snapshot.id:
        check_vectors_of(session, checkpoint, snapshot, stands)
    with milvus.connected(session.config.collection) as connection:
        choices: list[Candidate] = []
        if session.config.collection.promise is not None:
            choices = choose(
                session, checkpoint, snapshot, layout, None if rebuild else find_served(connection, session.config)
            )
        spec = collection_spec(session.config, snapshot, layout)
        spec = _beside(connection, spec) if rebuild else _named(connection, session, spec)
        publication = Publication(session, checkpoint, snapshot, spec, connection, choices)
        served = find_served(connection, session.config)
        if served is None or served.name != spec.name:
            check_quality(session, checkpoint, snapshot, layout, served)
        publication.run()


def _named(connection: milvus.Milvus, session: Session, spec: CollectionSpec) -> CollectionSpec:
    """The collection that is served, if it is what is wanted; else one whose name is free or that was begun."""
    served = find_served(connection, session.config)
    if served is not None and served.state == STATE_READY and served.target_id is None:
        same = (served.space_id, served.snapshot_id) == (spec.space_id, spec.snapshot_id)
        if same and not misfits(served, spec):
            return replace(spec, name=served.name)
    for turn in range(1, 1000):
        name = spec.name if turn == 1 else f"{spec.name}_{turn}"
        found = milvus.state(connection, name)
        # One of that name may have been brought to another snapshot since.
        if found is None or found.space_id is None or found.snapshot_id == spec.snapshot_id:
            return replace(spec, name=name)
    raise CollectionError(f"Milvus has a thousand collections named {spec.name}", "remove some with vecbeam gc")


def _beside(connection: milvus.Milvus, spec: CollectionSpec) -> CollectionSpec:
    """A collection whose name is free, or one of the same rows that was begun and never finished."""
    for turn in range(1, 1000):
        name = spec.name if turn == 1 else f"{spec.name}_{turn}"
        found = milvus.state(connection, name)
        if found is None:
            return replace(spec, name=name)
        same = (found.space_id, found.snapshot_id) == (spec.space_id, spec.snapshot_id)
        if same and found.state == STATE_LOADING and milvus.has_columns(found, spec):
            return replace(spec, name=name)
    raise CollectionError(f"Milvus has a thousand collections named {spec.name}", "remove some with vecbeam gc")


class Publication:
    """A collection on its way from a snapshot to the alias.

    Args:
        spec: the collection, by its name in Milvus.
        connection: to Milvus, open.
        choices: indexes, the best first, of which the first that keeps its promise is built; empty where the
            configuration names the index.

    Attributes:
        inspection: of the collection against the snapshot.
    """

    def __init__(
        self,
        session: Session,
        checkpoint: Checkpoint,
        snapshot: Snapshot,
        spec: CollectionSpec,
        connection: milvus.Milvus,
        choices: Sequence[Candidate] = (),
    ) -> None:
        self._session = session
        self._config = session.config
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._spec = spec
        self._connection = connection
        self._choices = choices
        self.inspection = Inspection(session, checkpoint, snapshot, spec, connection)
        report = session.report
        report.collection, report.space, report.snapshot = spec.name, snapshot.space_id, snapshot.id

    def run(self) -> None:
        """Creates, loads, indexes, verifies and publishes; what is done already is not done again."""
        spec, connection = self._spec, self._connection
        milvus.check_free(connection, spec)
        state = milvus.state(connection, spec.name)
        if state is None:
            with Phase(self._session, "load"):
                milvus.create(connection, spec, self._session.run_id)
            state = milvus.state(connection, spec.name)
        if state is None or state.load_id is None:
            raise CollectionError(
                f"the collection {spec.name} vanished while it was made", "run the same command again"
            )
        ledger = Ledger(self._checkpoint, spec.name, state.load_id)
        fresh = state.state != STATE_READY
        imports = ImportStep(self._session, self._checkpoint, self._snapshot, spec, connection, ledger)
        if fresh and (reason := imports.finish()):
            # It is not known which of its rows were imported, and a second import would duplicate them.
            self._session.progress.note(
                f"an import into {spec.name} broke off ({reason}): making the collection from scratch"
            )
            imports.wait()
            milvus.drop(connection, spec.name)
            ledger.close()
            self.run()
            return
        if fresh:
            if self._config.collection.load == "import":
                imports.run()
            self._load(ledger, self._snapshot.live_parts)
            self.index()
            if self._choices:
                self._keep_promise()
        # Of what is served already, and was compared when it was made, some rows are enough for a run without news.
        seen = not fresh and milvus.served(connection, spec.alias) == spec.name
        check = self.inspection.check_rows(compared=SAMPLED if seen else ALL_COLUMNS, recall=fresh)
        if check.part_indexes_missing:
            # Someone deleted or changed rows, or the server lost them: the checkpoint has them.
            check = self._load_again(ledger, check, recall=fresh)
        self.inspection.gate(check, recall=fresh)
        self._publish(ledger, fresh)

    def repair(
        self, *, everything: bool = False, allow_deletes: bool = False, compared: str = ALL_COLUMNS
    ) -> milvus.RowCheck:
        """Brings a served collection to its snapshot, row by row, from the checkpoint.

        Args:
            everything: upserts all rows first, whose metadata may differ though their text is the same.
            allow_deletes: lifts `corpus.max_deleted`.
            compared: all columns, or ids and hashes.

        Returns:
            What the last comparison found, after the last write.

        Raises:
            GateError: if more rows would be deleted than allowed, and nothing was written; or if it is still not
                right after three rounds.
        """
        ledger = Ledger(self._checkpoint, self._spec.name, f"repair-{self._session.run_id}")
        check = self.inspection.check_rows(listed=EVERY_ID, compared=compared)
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
            check = self.inspection.check_rows(listed=EVERY_ID, compared=compared)
        for _ in range(REPAIRS):
            if check.clean:
                break
            if check.unexpected:
                self._session.discard_left()
                self._session.progress.note(f"deleting {len(check.unexpected)} unexpected rows of {self._spec.name}")
                milvus.delete(self._connection, self._spec.name, check.unexpected)
                self._session.report.chunks.deleted += len(check.unexpected)
            check = self._load_again(ledger, check, listed=EVERY_ID, compared=compared)
        ledger.close()
        self.inspection.gate(check, recall=False)
        return check

    def _load_again(
        self,
        ledger: Ledger,
        check: milvus.RowCheck,
        listed: int | None = None,
        compared: str = ALL_COLUMNS,
        *,
        recall: bool = False,
    ) -> milvus.RowCheck:
        damaged = [self._snapshot.live_part(index) for index in check.part_indexes_missing]
        if damaged:
            self._session.progress.note(f"{len(damaged)} parts are not whole in {self._spec.name}: loading them again")
            ledger.forget([part.name for part in damaged])
            self._load(ledger, damaged)
        self.index()
        return self.inspection.check_rows(listed=listed, compared=compared, recall=recall)

    def _load(self, ledger: Ledger, parts: list[LivePart]) -> None:
        acknowledged = ledger.acknowledged()
        waiting = [part for part in parts if part.name not in acknowledged]
        if not waiting:
            return
        self._session.discard_left()  # a comparison of what the collection held before
        self._session.progress.step("load", total=self._snapshot.total("rows"), counter="chunks_loaded")
        flush_bytes = milvus.flush_step(self._connection, self._snapshot.total("bytes"))
        (give_back_at_once if flush_bytes else give_back)()
        writers = milvus.writers(self._connection)

        load = LoadParts(self._config.collection, self._spec, ledger, flush_bytes, writers)
        with (
            self._session.resumable("load", self._snapshot.id),
            listed(waiting, LIVE_PARTS, self._session.uri("work/load.parquet")) as work,
        ):
            counters = beam_job.run(
                self._config,
                lambda pipeline: pipeline | "Parts" >> work | "LoadParts" >> load,
                self._session,
                one_writer=self._connection.is_lite,
                reads=self._snapshot.bytes_of(part.name for part in waiting),
            )
        self._session.add_counters(counters)
        self._session.report.chunks.loaded += counters["chunks_loaded"]

    def _keep_promise(self) -> None:
        """Builds the index that keeps its promise on the whole collection."""

        def build(spec: CollectionSpec) -> None:
            self._spec = spec
            self.index()

        keeping = IndexPromise(self._session, self._checkpoint, self._snapshot, self._connection)
        self._spec = keeping.keep(self._spec, self._choices, build)
        self.inspection = Inspection(self._session, self._checkpoint, self._snapshot, self._spec, self._connection)

    def index(self) -> None:
        """Flushes, builds a missing index, and waits until the collection can be searched by it."""
        self._session.progress.step("index")
        give_back()
        with Phase(self._session, "index"):
            milvus.finish(self._connection, self._spec)
        give_back()

    def _publish(self, ledger: Ledger, fresh: bool) -> None:
        spec, connection = self._spec, self._connection
        served = milvus.served(connection, spec.alias)
        over = excess(self._snapshot, self._config)
        if over and served not in (None, spec.name) and not self._holds_the_same(served):
            raise RejectsError(
                f"{over}; {spec.name} is whole and verified, but the alias {spec.alias} stays at {served}",
                remedy(over, lossless=False),
            )
        with Phase(self._session, "index"):
            if similarities := self.inspection.similarities:
                milvus.set_properties(connection, spec.name, {PROPERTY_SIMILARITIES: json.dumps(similarities)})
            if fresh:
                milvus.set_ready(connection, spec.name, served if served and served != spec.name else "")
            else:
                link(connection, spec.name, served)
            milvus.publish(connection, spec.alias, spec.name)
            if served != spec.name:
                self._session.moved(served, spec.name)
            ledger.close()
        self._session.report.verify.published = True
        if over:
            raise RejectsError(f"{over}; the good rows are published as {spec.alias}", remedy(over))

    def _holds_the_same(self, name: str) -> bool:
        """Whether a collection is of the same rows, so that searchers lose nothing by another one in its place."""
        state = milvus.state(self._connection, name)
        return state is not None and (state.space_id, state.snapshot_id) == (self._spec.space_id, self._snapshot.id)
