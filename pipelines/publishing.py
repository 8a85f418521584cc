"""Snapshot to published collection: create, load, index, verify, gate, alias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
import pyarrow as pa

from pipelines import beam_runner
from pipelines.session import Phase, Session
from schemas.collection import STATE_READY, CollectionSpec, MetadataColumn
from schemas.config import Config
from schemas.errors import CollectionError, GateError, RejectsError, SpaceMismatchError
from schemas.identity import digest
from transforms import collection as milvus
from transforms.checkpoint import Checkpoint, Snapshot, iterate_parts
from transforms.load import Ledger, LoadParts
from transforms.read import CONTAINER_ERRORS


def collection_spec(config: Config, snapshot: Snapshot, dimensions: int) -> CollectionSpec:
    """The collection that a snapshot becomes under a configuration; its name follows from both."""
    metadata = tuple(
        MetadataColumn(name, field.type, field.default, field.max_bytes)
        for name, field in config.corpus.metadata.items()
    )
    settings = config.collection
    identity = [
        snapshot.id,
        dimensions,
        settings.metric,
        settings.index.type,
        settings.index.parameters,
        settings.id_max_bytes,
        [(column.name, column.type, column.default, column.max_bytes) for column in metadata],
    ]
    return CollectionSpec(
        name=f"{config.name}_{snapshot.space_id[:8]}_{digest(identity, 8)}",
        alias=config.name,
        space_id=snapshot.space_id,
        snapshot_id=snapshot.id,
        dimensions=dimensions,
        metric=settings.metric,
        index_type=settings.index.type,
        index_parameters=settings.index.parameters,
        search_parameters=dict(settings.search),
        metadata=metadata,
        id_max_bytes=settings.id_max_bytes,
    )


def check_milvus(config: Config) -> None:
    """Raises CollectionError where Milvus can't be reached, or the alias' name is taken by a collection."""
    with milvus.connected(config.collection) as client:
        if milvus.exists(client, config.name):
            raise CollectionError(
                f"Milvus at {config.collection.uri} has a collection named {config.name!r}, and the alias of this "
                "configuration has the same name",
                "choose another name in the configuration, or rename or drop that collection",
            )


def verify_served(session: Session, checkpoint: Checkpoint, snapshot: Snapshot, dimensions: int) -> None:
    """Holds the collection behind the alias against a snapshot, and measures recall.

    Raises:
        CollectionError: where nothing is served.
        GateError: where rows or recall are not right.
    """
    config = session.config
    spec = collection_spec(config, snapshot, dimensions)
    with milvus.connected(config.collection) as client:
        served = served_state(client, config)
        spec = replace(spec, name=served.name)
        session.report.collection, session.report.space = served.name, served.space_id or ""
        session.report.verify.published = True
        if served.space_id != snapshot.space_id:
            raise SpaceMismatchError(
                f"{config.name} serves {served.name} of space {served.space_id}, "
                f"the snapshot is of space {snapshot.space_id}",
                "run vecbeam backfill to publish what the checkpoint holds",
            )
        publication = _Publication(session, checkpoint, snapshot, spec, client)
        publication.gate(publication.check_rows(), recall=True)


def open_for_search(client: Any, config: Config, name: str) -> None:
    """Loads a collection into Milvus' memory, where it isn't: Milvus Lite forgets that with each process."""
    state = milvus.state(client, name)
    if state is not None and not state.loaded:
        milvus.call(config.collection, client.load_collection, name)


def served_state(client: Any, config: Config) -> milvus.CollectionState:
    """The collection behind the configuration's alias.

    Raises:
        CollectionError: where nothing is served under that name.
    """
    name = milvus.served(client, config.name)
    state = milvus.state(client, name) if name else None
    if state is None:
        raise CollectionError(
            f"Milvus at {config.collection.uri} serves nothing under the alias {config.name!r}", "run vecbeam backfill"
        )
    return state


def publish(session: Session, checkpoint: Checkpoint, snapshot: Snapshot, dimensions: int) -> None:
    """Makes the collection of a snapshot and moves the alias to it. Does nothing where it is served already.

    Raises:
        GateError: where rows or recall are not right; the alias stays where it was.
        RejectsError: where more was rejected or dropped than allowed. A first collection is published all the same;
            a served one is not replaced.
    """
    config = session.config
    spec = collection_spec(config, snapshot, dimensions)
    session.report.collection = spec.name
    session.report.space = snapshot.space_id
    session.report.snapshot = snapshot.id
    with milvus.connected(config.collection) as client:
        _Publication(session, checkpoint, snapshot, spec, client).run()


class _Publication:
    def __init__(
        self, session: Session, checkpoint: Checkpoint, snapshot: Snapshot, spec: CollectionSpec, client: Any
    ) -> None:
        self._session = session
        self._config = session.config
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._spec = spec
        self._client = client

    def run(self) -> None:
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
        if fresh:
            self._load(ledger, self._snapshot.parts)
            self._index()
        check = self.check_rows()
        if check.part_indexes_missing:
            # Someone deleted or changed rows, or the server lost them: the checkpoint has them.
            damaged = [self._snapshot.parts[index] for index in check.part_indexes_missing]
            self._session.progress.note(f"{len(damaged)} parts are not whole in {spec.name}: loading them again")
            ledger.forget(damaged)
            self._load(ledger, damaged)
            self._index()
            check = self.check_rows()
        self.gate(check, recall=fresh)
        self._publish(ledger, fresh)

    def _load(self, ledger: Ledger, parts: list[str]) -> None:
        acknowledged = ledger.acknowledged()
        waiting = [part for part in parts if part not in acknowledged]
        if not waiting:
            return
        self._session.progress.step("load", total=self._snapshot.total("rows"), counter="chunks_loaded")

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Parts" >> beam.Create(waiting)
                | "Spread" >> beam.Reshuffle()
                | "LoadParts" >> LoadParts(self._config.collection, self._spec, ledger)
            )

        counters = beam_runner.run(self._config, build)
        self._session.add_counters(counters)
        self._session.report.chunks.loaded += counters["chunks_loaded"]

    def _index(self) -> None:
        self._session.progress.step("index")
        with Phase(self._session, "index"):
            milvus.finish(self._client, self._config.collection, self._spec)

    def _parts(self, columns: list[str]) -> Iterator[pa.Table]:
        return iterate_parts(self._checkpoint, self._snapshot.parts, columns)

    def check_rows(self) -> milvus.RowCheck:
        """Compares the collection with the snapshot row by row, and puts the counts into the report."""
        self._session.progress.step("verify")
        with Phase(self._session, "verify"):
            open_for_search(self._client, self._config, self._spec.name)
            check = milvus.verify_rows(
                self._client, self._config.collection, self._spec.name, self._parts(["id", "content_hash"])
            )
        verify = self._session.report.verify
        verify.expected, verify.found = check.expected, check.found
        verify.missing, verify.unexpected = check.missing_count, check.unexpected_count
        verify.stale = check.stale_count
        return check

    def gate(self, check: milvus.RowCheck, *, recall: bool) -> None:
        """Raises GateError where rows are not those of the snapshot, or recall is too low."""
        report = self._session.report
        kinds = (
            (check.missing_count, "missing", check.missing),
            (check.unexpected_count, "unexpected", check.unexpected),
            (check.stale_count, "stale", check.stale),
        )
        problems = [f"{number} rows {kind} (first: {', '.join(ids[:3])})" for number, kind, ids in kinds if number]
        if recall and not problems:
            with Phase(self._session, "verify"):
                measured = milvus.measure_recall(
                    self._client,
                    self._config.collection,
                    self._spec,
                    lambda: self._parts(["id", "vector"]),
                    self._snapshot.total("rows"),
                    self._config.verify.sample,
                )
            report.verify.recall_at_10 = round(measured, 4)
            if measured < self._config.verify.recall_at_10:
                problems.append(
                    f"recall@10 is {measured:.4f}, verify.recall_at_10 asks for {self._config.verify.recall_at_10}: "
                    "raise the index's build or search parameters"
                )
        if problems:
            raise GateError(
                f"{self._spec.name} did not pass: {'; '.join(problems)}",
                f"the alias {self._spec.alias} was not moved; mend the cause and run the same command again",
            )

    def _publish(self, ledger: Ledger, fresh: bool) -> None:
        spec, client = self._spec, self._client
        served = milvus.served(client, spec.alias)
        excess = self.excess()
        if excess and served not in (None, spec.name):
            raise RejectsError(
                f"{excess}; {spec.name} is whole and verified, but the alias {spec.alias} stays at {served}",
                "mend the corpus, or raise the limit under verify, and run the same command again",
            )
        with Phase(self._session, "index"):
            if fresh:
                milvus.set_ready(client, spec.name)
            milvus.publish(client, spec.alias, spec.name)
            ledger.close()
        self._session.report.verify.published = True
        if excess:
            raise RejectsError(
                f"{excess}; the good rows are published as {spec.alias}",
                "mend the corpus, or raise the limit under verify, and run the same command again",
            )

    def excess(self) -> str:
        """What was rejected or dropped over the limits, or ""."""
        limits, snapshot = self._config.verify, self._snapshot
        errors = snapshot.errors()
        hidden = sorted(CONTAINER_ERRORS & set(errors))
        if hidden and limits.max_rejected < 1:
            return (
                f"files could not be read to their end ({', '.join(hidden)}), so nobody knows how many items they hold"
            )
        # What `on_duplicate` left out was asked for.
        rejected = sum(count for error, count in errors.items() if error != "DuplicateId")
        read = snapshot.total("items_read")
        if read and rejected / read > limits.max_rejected:
            return f"{rejected} of {read} items were rejected, verify.max_rejected allows {limits.max_rejected:.2%}"
        dropped = snapshot.total("tokens_dropped")
        tokens = snapshot.total("tokens") + dropped
        if tokens and dropped / tokens > limits.max_dropped_tokens:
            allowed = f"verify.max_dropped_tokens allows {limits.max_dropped_tokens:.2%}"
            return f"{dropped} of {tokens} tokens were dropped, {allowed}"
        return ""
