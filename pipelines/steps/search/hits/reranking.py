"""Late interaction: rows that a search found, ranked again by the vectors of their tokens, which only the parts have.

The score is MaxSim: for each vector of the query the largest product with any vector of the row, summed up (Khattab and
Zaharia, SIGIR 2020, https://arxiv.org/abs/2004.12832).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.steps.search.queries.query import Query
from pipelines.steps.search.queries.query_encoder import QueryEncoder
from pipelines.steps.search.queries.word_arithmetic import Arithmetic
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError
from schemas.layout import VectorKind
from transforms import milvus
from transforms.checkpoint import Checkpoint
from transforms.checkpoint.row_places import RowPlaces
from transforms.support.storage import filesystem

Floats = NDArray[np.float32]
METRIC = "MaxSim"
"""What stands for a metric in a result; a larger score is nearer."""
CANDIDATES = 100
"""Rows of the first search that are ranked again, unless said otherwise."""
_INSTEAD = "search without --rerank, or build the collection and its parts again with vecbeam reindex --full-refresh"


class Stages(NamedTuple):
    """The vectors of a search.

    Attributes:
        first: those that Milvus searches.
        late: the one of tokens, by which their hits are ranked again; "" for none.
    """

    first: list[str]
    late: str


def stages(kinds: Mapping[str, VectorKind], names: Sequence[str], rerank: str) -> Stages:
    """The vectors of a search: those that are named, or the first that Milvus can search.

    Args:
        kinds: of each vector of the rows, in their order.
        names: to search; one of tokens means to rank by it.
        rerank: "" for none.

    Raises:
        ConfigurationError: if several rank again, or one that has no tokens.

    >>> kinds = {"late": VectorKind.MULTI, "words": VectorKind.SPARSE, "meaning": VectorKind.DENSE}
    >>> stages(kinds, ["late"], ""), stages(kinds, ["meaning", "words"], "")
    (Stages(first=['words'], late='late'), Stages(first=['meaning', 'words'], late=''))
    """
    of_tokens = [name for name, kind in kinds.items() if kind is VectorKind.MULTI]
    if rerank and rerank not in of_tokens:
        raise ConfigurationError(
            f"--rerank: the vector {rerank} is {kinds[rerank]}, and rows are ranked again by the vectors of tokens",
            f"name {' or '.join(of_tokens)}" if of_tokens else f"search it with --vector {rerank}",
        )
    late = list(dict.fromkeys([*([rerank] if rerank else []), *(name for name in names if name in of_tokens)]))
    if len(late) > 1:
        raise ConfigurationError(f"{' and '.join(late)} would both rank the rows again", "name one of them")
    first = [name for name in names if name not in of_tokens]
    return Stages(first or [next((name for name in kinds if name not in of_tokens), "")], late[0] if late else "")


class Reranker:
    """Ranks hits by a vector of tokens. Several threads may use it at once.

    Args:
        encoder: of the vector of tokens.
    """

    def __init__(self, config: Config, encoder: QueryEncoder) -> None:
        self._encoder = encoder
        self._name = encoder.field.name
        self._config = config
        self._changing = threading.Lock()
        self._places: dict[str, RowPlaces] = {}
        if not filesystem.is_local(config.checkpoint):
            from pipelines.run.jobs.beam_options import prepare_filesystems  # not before: importing Beam takes a second

            prepare_filesystems(config)

    def rank(
        self, queries: Sequence[Query], found: Sequence[Sequence[dict[str, Any]]], k: int, state: milvus.CollectionState
    ) -> list[list[dict[str, Any]]]:
        """The `k` best of the hits of each query; hits with the same score stay in their order.

        Args:
            found: hits of each query, best first, each with its `id`.
            state: the collection that they are from.

        Raises:
            CheckpointError: if the parts with their vectors can't be read.
        """
        rows = self._rows(sorted({hit["id"] for hits in found for hit in hits}), state)
        wanted = self._encoder.embed(queries, Arithmetic(), lambda ids: self._stored(ids, state))
        ranked = []
        for query, hits in zip(matrices(wanted, self._dimensions), found, strict=True):
            scores = max_similarities(query, [rows[hit["id"]] for hit in hits])
            best = np.argsort(-scores, kind="stable")[:k]
            ranked.append([{**hits[at], "score": round(float(scores[at]), 6)} for at in best])
        return ranked

    @property
    def name(self) -> str:
        """The vector that it ranks by."""
        return self._name

    @property
    def _dimensions(self) -> int:
        return self._encoder.field.dimensions

    def _stored(self, ids: Sequence[str], state: milvus.CollectionState) -> pa.Array:
        tables = self._read(ids, state)
        return pa.concat_arrays([tables[row_id].column(self._name).combine_chunks() for row_id in ids])

    def _rows(self, ids: Sequence[str], state: milvus.CollectionState) -> dict[str, Floats]:
        tables = self._read(ids, state)
        return {
            row_id: matrices(table.column(self._name).combine_chunks(), self._dimensions)[0]
            for row_id, table in tables.items()
        }

    def _read(self, ids: Sequence[str], state: milvus.CollectionState) -> dict[str, pa.Table]:
        """Rows of the parts, by id: of the snapshot that the collection holds, or is being brought to."""
        checkpoint = Checkpoint(self._config.checkpoint, self._config.name, state.space_id or "")
        found: dict[str, pa.Table] = {}
        for identity in (state.target_id, state.snapshot_id):
            missing = [row_id for row_id in ids if row_id not in found]
            if identity and missing:
                found |= self._of(checkpoint, identity, state).read(missing, [self._name])
        if missing := [row_id for row_id in ids if row_id not in found]:
            raise CheckpointError(
                f"{checkpoint.root} does not have the {self._name} of {len(missing)} rows of {state.name}, the "
                f"first of them {missing[0]!r}",
                "run vecbeam verify --repair, which removes rows that the snapshot does not have; or search without "
                "--rerank",
            )
        return found

    def _of(self, checkpoint: Checkpoint, identity: str, state: milvus.CollectionState) -> RowPlaces:
        with self._changing:
            if identity not in self._places:
                snapshot = checkpoint.find_snapshot(identity)
                if snapshot is None:
                    raise CheckpointError(
                        f"{checkpoint.root} does not have the snapshot {identity} that {state.name} holds, and "
                        f"so not the {self._name} of its rows",
                        _INSTEAD,
                    )
                try:
                    places = RowPlaces(checkpoint, snapshot)
                except CheckpointError as error:
                    raise CheckpointError(f"can't rank by {self._name}: {error.message}", _INSTEAD) from error
                # An update goes from one snapshot to another; those before them are not searched any more.
                self._places = {key: self._places[key] for key in [*self._places][-1:]} | {identity: places}
            return self._places[identity]


def matrices(vectors: pa.Array, dimensions: int) -> list[Floats]:
    """The vectors of each row, float32[tokens, dimensions], of an Arrow array of them."""
    flat = vectors.flatten()
    numbers: Floats = flat.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimensions)
    ends = np.cumsum(vectors.value_lengths().to_numpy(zero_copy_only=False))
    return [np.asarray(one) for one in np.split(numbers, ends[:-1])] if len(ends) else []


def max_similarities(query: Floats, documents: Sequence[Floats]) -> Floats:
    """MaxSim of a query with each document, float32[n].

    Args:
        query: float32[its vectors, dimensions].
        documents: float32[its vectors, dimensions] of each, at least one vector.

    >>> one, other = np.eye(2, dtype=np.float32), np.array([[0.5, 0.25]], np.float32)
    >>> max_similarities(one, [one, other]).tolist()
    [2.0, 0.75]
    """
    if not documents:
        return np.zeros(0, np.float32)
    products = query @ np.concatenate(documents).T
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    scores: Floats = np.maximum.reduceat(products, starts, axis=1).sum(axis=0)
    return scores
