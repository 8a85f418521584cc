"""Snapshot to published collection: create, load, index, verify, gate, alias."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pipelines.run.session import Phase, Session
from pipelines.steps.collection.served import find_served
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
from pipelines.steps.publish.collection_name import beside, named
from pipelines.steps.publish.collection_run import CollectionRun
from pipelines.steps.publish.import_step import ImportStep
from pipelines.steps.publish.index_candidates import choose
from pipelines.steps.publish.index_promise import IndexPromise
from pipelines.steps.publish.inspection import Inspection
from pipelines.steps.publish.loading import Loading
from pipelines.steps.quality.quality_gate import check_quality
from schemas.errors import CollectionError, RejectsError
from schemas.layout import Layout
from schemas.milvus import STATE_READY, CollectionSpec
from schemas.milvus.collection_spec import PROPERTY_SIMILARITIES
from transforms import milvus
from transforms.checkpoint import Checkpoint, LivePart, Snapshot
from transforms.explore.candidate import Candidate
from transforms.load.specification import collection_spec
from transforms.load.upsert_parts import Ledger
from transforms.milvus.alias import link
from transforms.milvus.rows.row_check import ALL_COLUMNS, SAMPLED
from transforms.support.memory import give_back

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
        spec = beside(connection, spec) if rebuild else named(connection, session.config, spec)
        publication = Publication(CollectionRun(session, checkpoint, snapshot, spec, connection), choices)
        served = find_served(connection, session.config)
        if served is None or served.name != spec.name:
            check_quality(session, checkpoint, snapshot, layout, served)
        publication.run()


class Publication:
    """A collection on its way from a snapshot to the alias.

    Args:
        choices: indexes, the best first, of which the first that keeps its promise is built; empty where the
            configuration names the index.

    Attributes:
        inspection: of the collection against the snapshot.
    """

    def __init__(self, given: CollectionRun, choices: Sequence[Candidate] = ()) -> None:
        self._given = given
        self._session = given.session
        self._connection = given.connection
        self._choices = choices
        self.inspection = Inspection(given)
        report = given.session.report
        report.collection, report.space, report.snapshot = given.spec.name, given.snapshot.space_id, given.snapshot.id

    def run(self) -> None:
        """Creates, loads, indexes, verifies and publishes; what is done already is not done again."""
        spec, connection = self._given.spec, self._connection
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
        ledger = Ledger(self._given.checkpoint, spec.name, state.load_id)
        fresh = state.state != STATE_READY
        imports = ImportStep(self._given, ledger)
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
        check = self._made(ledger, imports) if fresh else self._check_again()
        if check.part_indexes_missing:
            # Someone deleted or changed rows, or the server lost them: the checkpoint has them.
            check = self._load_again(ledger, check, recall=fresh)
        self.inspection.gate(check, recall=fresh)
        self._publish(ledger, fresh)

    def _made(self, ledger: Ledger, imports: ImportStep) -> milvus.RowCheck:
        """Loads and compares a collection that is not complete yet."""
        if self._given.config.collection.load == "import":
            imports.run()
        parts = self._given.snapshot.live_parts
        if not self._choices:
            return self._load(ledger, parts, recall=True)
        Loading(self._given, ledger, parts).run()
        self.index()
        self._keep_promise()
        return self.inspection.check_rows(recall=True)

    def _check_again(self) -> milvus.RowCheck:
        """Compares a collection that was complete once: all rows, or some if it is served and was compared then."""
        spec = self._given.spec
        seen = milvus.served(self._connection, spec.alias) == spec.name
        return self.inspection.check_rows(compared=SAMPLED if seen else ALL_COLUMNS)

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
        given = self._given
        ledger = Ledger(given.checkpoint, given.spec.name, f"repair-{self._session.run_id}")
        check = self.inspection.check_rows(listed=EVERY_ID, compared=compared)
        check_unexpected(
            check.unexpected_count,
            check.total,
            given.spec.name,
            given.config.corpus.max_deleted,
            allowed=allow_deletes,
        )
        if everything:
            check = self._load(ledger, given.snapshot.live_parts, listed=EVERY_ID, compared=compared)
        for _ in range(REPAIRS):
            if check.clean:
                break
            if check.unexpected:
                self._session.discard_left()
                self._session.progress.note(f"deleting {len(check.unexpected)} unexpected rows of {given.spec.name}")
                milvus.delete(self._connection, given.spec.name, check.unexpected)
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
        damaged = [self._given.snapshot.live_part(index) for index in check.part_indexes_missing]
        if damaged:
            self._session.progress.note(
                f"{len(damaged)} parts are not whole in {self._given.spec.name}: loading them again"
            )
            ledger.forget([part.name for part in damaged])
        return self._load(ledger, damaged, listed=listed, compared=compared, recall=recall)

    def _load(
        self,
        ledger: Ledger,
        parts: Sequence[LivePart],
        *,
        listed: int | None = None,
        compared: str = ALL_COLUMNS,
        recall: bool = False,
    ) -> milvus.RowCheck:
        """Loads what the collection has not acknowledged, builds the index, and compares all rows.

        That is one job where each of these would be one on other machines.
        """
        loading = Loading(self._given, ledger, parts)
        writes = loading.before_comparison()
        if writes is None:
            loading.run()
            self.index()
        return self.inspection.check_rows(listed, compared, recall=recall, writes=writes)

    def _keep_promise(self) -> None:
        """Builds the index that keeps its promise on the whole collection."""

        def build(spec: CollectionSpec) -> None:
            self._given = replace(self._given, spec=spec)
            self.index()

        given = self._given
        keeping = IndexPromise(given.session, given.checkpoint, given.snapshot, given.connection)
        self._given = replace(given, spec=keeping.keep(given.spec, self._choices, build))
        self.inspection = Inspection(self._given)

    def index(self) -> None:
        """Flushes, builds a missing index, and waits until the collection can be searched by it."""
        self._session.progress.step("index")
        give_back()
        with Phase(self._session, "index"):
            milvus.finish(self._connection, self._given.spec)
        give_back()

    def _publish(self, ledger: Ledger, fresh: bool) -> None:
        spec, connection = self._given.spec, self._connection
        served = milvus.served(connection, spec.alias)
        over = excess(self._given.snapshot, self._given.config)
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
        wanted = self._given.spec.space_id, self._given.snapshot.id
        return state is not None and (state.space_id, state.snapshot_id) == wanted
