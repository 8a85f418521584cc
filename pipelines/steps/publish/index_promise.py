"""`collection.index: auto`: the choice of an index by measurement, and whether it keeps what it promises.

The choice comes from a sample of the snapshot's vectors, without Milvus. It is kept in the checkpoint, so that a run
that resumes makes the same one. Then the whole collection is measured in Milvus, with each filter, with wider and wider
search parameters, and with the next index where these do not help, or cost much more than the next one may.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.run.session import Phase, Session
from pipelines.steps.collection.served import chosen_index, misfits, open_for_search, with_chosen, with_index
from pipelines.steps.collection.server import index_types
from schemas.config import Config
from schemas.errors import ConfigurationError, GateError
from schemas.identity import digest
from schemas.layout import Layout, VectorKind
from schemas.milvus import STATE_READY, CollectionSpec, VectorColumn, index_words
from schemas.milvus.collection_spec import PROPERTY_INDEX
from schemas.run_report import MeasuredIndex
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot, iterate_parts
from transforms.explore.index_sweep import SAMPLE_ROWS, Candidate, sweep, wider
from transforms.explore.live_rows import LiveRows
from transforms.load.specification import collection_spec, promise_of, vector_column
from transforms.milvus.nearest import check_filter
from transforms.milvus.rows.row_check import every_id
from transforms.support.fingerprints import fingerprints
from transforms.support.storage import filesystem

GIGABYTE = 10**9
CONFIRMING = 1
"""Seed of the queries that confirm a recall; those of the first measurement have 0."""
WORTH_A_BUILD = 1.5
"""Another index is built where the one that keeps the promise costs so many times its least cost."""


def choose(
    session: Session, checkpoint: Checkpoint, snapshot: Snapshot, layout: Layout, served: milvus.CollectionState | None
) -> list[Candidate]:
    """Chooses an index, and makes it that of the session's configuration.

    Args:
        served: what is served, if that may stay: then its index stays too, if it is of this snapshot and promise.

    Returns:
        The candidates that keep the promise on a sample, the best first; empty if the served index stays.

    Raises:
        GateError: if none keeps it.
    """
    config = session.config
    if served is not None and served.state == STATE_READY and chosen_index(served):
        stays = with_index(config, served)
        same = (served.space_id, served.snapshot_id) == (layout.space.id, snapshot.id)
        if same and not misfits(served, collection_spec(stays, snapshot, layout)):
            session.config = stays
            return []
    session.progress.note("choosing an index by measurement: collection.index is auto")
    tried = candidates(session.config, checkpoint, snapshot, layout)
    session.report.measured_indexes += of_sample(tried, min(SAMPLE_ROWS, snapshot.total("rows")))
    found = [one for one in tried if one.keeps]
    session.config = with_chosen(config, found[0].as_json())
    return found


def candidates(
    config: Config, checkpoint: Checkpoint, snapshot: Snapshot, layout: Layout, *, written: bool = True
) -> list[Candidate]:
    """All candidates, the best first; measured once for a snapshot and a promise.

    Args:
        written: keeps what was measured in the checkpoint.

    Raises:
        GateError: if none keeps the promise.
        ConfigurationError: if there is no vector whose index could be chosen.
    """
    promise, types = promise_of(config) or {}, index_types(config.collection)
    columns = _chosen_columns(config, layout)
    if not columns:
        raise ConfigurationError(
            "collection.index: auto chooses the index of dense vectors, and there is none that has no index of its own",
            "remove collection.index",
        )
    identity = digest([snapshot.id, promise, types, [(one.name, one.metric, one.dimensions) for one in columns]])
    uri = checkpoint.index_choice_uri(identity)
    if filesystem.exists(uri):
        found = [Candidate(**one) for one in json.loads(filesystem.read_bytes(uri))]
    else:
        rows = LiveRows(checkpoint, snapshot)
        samples = [(rows.sample(one.name, most=SAMPLE_ROWS).vectors, one.metric) for one in columns]
        memory = promise["memory_gb"] * GIGABYTE if promise["memory_gb"] else float("inf")
        found = sweep(samples, len(rows), types, promise["recall_at_10"], memory)
        if written:
            filesystem.write_atomic(uri, json.dumps([one.as_json() for one in found], indent=1).encode())
    if not any(one.keeps for one in found):
        shown = "; ".join(candidate_words(one) for one in found)
        raise GateError(
            f"no index keeps recall@10 {promise['recall_at_10']} within {promise['memory_gb'] or 'any'} GB: {shown}",
            "raise collection.index.memory_gb, or lower collection.index.recall_at_10",
        )
    return found


def of_sample(tried: Sequence[Candidate], rows: int) -> list[MeasuredIndex]:
    """What a sweep measured, for the report.

    Args:
        rows: of the sample.
    """
    return [
        MeasuredIndex(
            type=one.type,
            parameters=dict(one.parameters),
            search=dict.fromkeys(one.search, value) if value else {},
            recall_at_10=round(recall, 4),
            rows=rows,
            of="sample",
        )
        for one in tried
        for value, recall in one.curve or [(0, one.recall)]
    ]


def candidate_words(candidate: Candidate) -> str:
    """A candidate in words."""
    kind = " ".join([candidate.type, *(f"{name} {value}" for name, value in candidate.parameters.items())])
    searched = "".join(f", {name} {value}" for name, value in candidate.search.items())
    return f"{kind}{searched}: recall@10 {candidate.recall:.4f}, {candidate.memory / GIGABYTE:.3f} GB"


def with_candidate(spec: CollectionSpec, candidate: Candidate) -> CollectionSpec:
    """The collection with the index of a candidate, for the vectors that have no index of their own."""
    index: dict[str, Any] = {
        "index_type": candidate.type,
        "index_parameters": dict(candidate.parameters),
        "search_parameters": dict(candidate.search),
    }
    shared = {name for name, one in _shared(spec)}
    return replace(spec, vectors=tuple(replace(one, **index) if one.name in shared else one for one in spec.vectors))


def _shared(spec: CollectionSpec) -> Iterator[tuple[str, VectorColumn]]:
    """The dense vectors that have the index of the collection: the same as the first of them."""
    dense = [one for one in spec.vectors if one.kind == VectorKind.DENSE and not one.own_index]
    yield from ((one.name, one) for one in dense)


def _chosen_columns(config: Config, layout: Layout) -> list[VectorColumn]:
    found = (vector_column(config, one) for one in layout.vectors if one.in_collection)
    return [one for one in found if one.kind == VectorKind.DENSE and not one.own_index]


class Kept(NamedTuple):
    """A choice that keeps the promise on the whole collection.

    Attributes:
        candidate: with the search parameters that it needs there, and their cost.
        recalls: recall@10 by filter.
    """

    spec: CollectionSpec
    candidate: Candidate
    recalls: Mapping[str, float]


class IndexPromise:
    """Whether indexes of a collection keep what is promised, measured in Milvus over all rows."""

    def __init__(self, session: Session, checkpoint: Checkpoint, snapshot: Snapshot, connection: milvus.Milvus) -> None:
        self._session = session
        self._checkpoint = checkpoint
        self._snapshot = snapshot
        self._connection = connection
        self._tried: list[str] = []

    def keep(
        self, spec: CollectionSpec, choices: Sequence[Candidate], build: Callable[[CollectionSpec], None]
    ) -> CollectionSpec:
        """The collection with the cheapest index that keeps the promise, which becomes a property of the collection.

        Filters and rows outside the sample may need wider search parameters than those of the sample. Another index is
        built where it may cost much less than these.

        Args:
            choices: the best first.
            build: builds the index of a collection.

        Raises:
            GateError: if none keeps it.
        """
        best: Kept | None = None
        built: Candidate | None = None
        for choice in choices:
            if best is not None and best.candidate.cost < WORTH_A_BUILD * choice.cost:
                continue
            chosen = with_candidate(spec, choice)
            build(chosen)
            built = choice
            found = self._kept(chosen, choice)
            if found is not None and (best is None or found.candidate.cost < best.candidate.cost):
                best = found
        if best is None or built is None:
            raise self._broken(spec)
        if (built.type, built.parameters) != (best.candidate.type, best.candidate.parameters):
            build(best.spec)
        self._write(best)
        return best.spec

    def _kept(self, spec: CollectionSpec, candidate: Candidate) -> Kept | None:
        """An index that is built, with the search parameters that keep the promise; None if no wider ones do."""
        promise = dict(spec.promise or {})
        self._session.progress.step("verify")
        with Phase(self._session, "verify"):
            open_for_search(self._connection, spec.name)
            matching = {filter: self._matching(spec.name, filter) for filter in ["", *promise["filters"]]}
            recalls: dict[str, float] = {}
            for search in wider(candidate.type, candidate.search, candidate.parameters.get("nlist", 1)):
                spec = with_candidate(spec, replace(candidate, search=search))
                recalls = self._recalls(spec, matching, promise["recall_at_10"])
                self._session.report.measured_indexes += [
                    MeasuredIndex(
                        type=candidate.type,
                        parameters=dict(candidate.parameters),
                        search=dict(search),
                        recall_at_10=round(recall, 4),
                        rows=self._snapshot.total("rows") if (ids := matching[filter]) is None else len(ids),
                        filter=filter,
                    )
                    for filter, recall in recalls.items()
                ]
                if min(recalls.values()) >= promise["recall_at_10"]:
                    # What a search reads grows with ef, and with nprobe.
                    times = sum(search.values()) / max(1, sum(candidate.search.values())) if search else 1
                    cost = round(candidate.cost * times)
                    return Kept(spec, replace(candidate, search=search, cost=cost), recalls)
        worst = min(recalls, key=lambda one: recalls[one])
        under = f" under {worst}" if worst else ""
        self._tried.append(
            f"{candidate_words(replace(candidate, search=search))} on the sample, {recalls[worst]:.4f}{under}"
        )
        return None

    def _broken(self, spec: CollectionSpec) -> GateError:
        """The error where no choice keeps the promise."""
        promise = spec.promise or {}
        return GateError(
            f"{spec.name} did not pass: no index keeps recall@10 {promise['recall_at_10']}: {'; '.join(self._tried)}; "
            f"the alias {spec.alias} was not moved",
            "lower collection.index.recall_at_10, or name an index: collection.index: {type: FLAT} finds every row",
        )

    def _write(self, kept: Kept) -> None:
        spec, candidate, recalls = kept
        chosen = {
            "type": candidate.type,
            "parameters": dict(candidate.parameters),
            "search": dict(candidate.search),
            "promise": dict(spec.promise or {}),
            "recalls": {filter: round(recall, 4) for filter, recall in recalls.items()},
        }
        milvus.set_properties(self._connection, spec.name, {PROPERTY_INDEX: json.dumps(chosen)})
        parameters = {**candidate.parameters, **candidate.search}
        said = index_words(candidate.type, next(iter(spec.vectors)).metric, parameters)
        measured = ", ".join(
            f"{recall:.4f}{f' under {filter}' if filter else ''}" for filter, recall in recalls.items()
        )
        self._session.config = with_chosen(self._session.config, chosen)
        self._session.report.verify.index_chosen = f"{said}; recall@10 {measured}"
        self._session.progress.note(f"chose {said}; recall@10 {measured}")

    def _recalls(
        self, spec: CollectionSpec, matching: Mapping[str, NDArray[np.int64] | None], least: float
    ) -> dict[str, float]:
        """Recall@10 by filter; where all keep the promise, the lower one of two measurements.

        Of many parameters that are tried with the same queries, some pass by chance; other queries confirm them.
        """
        found = {filter: self._recall(spec, filter, ids, 0) for filter, ids in matching.items()}
        if min(found.values()) < least:
            return found
        return {
            filter: min(recall, self._recall(spec, filter, matching[filter], CONFIRMING))
            for filter, recall in found.items()
        }

    def _recall(self, spec: CollectionSpec, filter: str, ids: NDArray[np.int64] | None, seed: int) -> float:
        """The least recall@10 of the vectors; 1 where no row matches."""
        total = self._snapshot.total("rows") if ids is None else len(ids)
        found = [1.0]
        for name, column in _shared(spec):
            measured = milvus.measure_recall(
                self._connection,
                spec,
                partial(self._parts, name, ids),
                total,
                self._session.config.verify.sample,
                seed,
                column,
                filter=filter,
            )
            found += [measured.at_10] if measured is not None else []
        return min(found)

    def _matching(self, name: str, filter: str) -> NDArray[np.int64] | None:
        """Fingerprints of the ids of the rows that a filter leaves; None for all.

        Raises:
            ConfigurationError: if Milvus does not understand the filter.
        """
        if not filter:
            return None
        check_filter(self._connection, name, filter)
        return np.concatenate(
            [np.zeros(0, np.int64), *(fingerprints(ids) for ids in every_id(self._connection, name, filter))]
        )

    def _parts(self, vector: str, ids: NDArray[np.int64] | None) -> Iterator[pa.Table]:
        for part in iterate_parts(self._checkpoint, self._snapshot.live_parts, ["id", vector]):
            if ids is None:
                yield part
            else:
                yield part.filter(pa.array(np.isin(fingerprints(part.column("id").to_pylist()), ids)))
