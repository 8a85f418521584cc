"""`collection.index: auto`: the candidates for the index, by measurement on a sample of the snapshot, without Milvus.

They are kept in the checkpoint, so that a run that resumes makes the same choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pipelines.run.session import Session
from pipelines.steps.collection.served import chosen_index, misfits, with_chosen, with_index
from pipelines.steps.collection.server import index_types
from schemas.config import Config
from schemas.errors import ConfigurationError, GateError
from schemas.identity import digest
from schemas.layout import Layout, VectorKind
from schemas.milvus import STATE_READY, CollectionSpec, VectorColumn
from schemas.run_report import MeasuredIndex
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.explore.candidate import Candidate
from transforms.explore.index_sweep import SAMPLE_ROWS, sweep
from transforms.explore.live_rows import LiveRows
from transforms.load.specification import collection_spec, promise_of, vector_column
from transforms.support.storage import filesystem

GIGABYTE = 10**9


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
    shared = {name for name, one in shared_vectors(spec)}
    return replace(spec, vectors=tuple(replace(one, **index) if one.name in shared else one for one in spec.vectors))


def shared_vectors(spec: CollectionSpec) -> Iterator[tuple[str, VectorColumn]]:
    """The dense vectors that have the index of the collection: the same as the first of them."""
    dense = [one for one in spec.vectors if one.kind == VectorKind.DENSE and not one.own_index]
    yield from ((one.name, one) for one in dense)


def _chosen_columns(config: Config, layout: Layout) -> list[VectorColumn]:
    found = (vector_column(config, one) for one in layout.vectors if one.in_collection)
    return [one for one in found if one.kind == VectorKind.DENSE and not one.own_index]
