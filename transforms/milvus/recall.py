"""Recall of an index against exact search, streamed over the checkpoint's vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.milvus import CollectionSpec, VectorColumn
from transforms.milvus.nearest import effective_parameters, search_many
from transforms.milvus.rows.message import Vectors
from transforms.milvus.rows.upsert import vectors_of

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

Floats = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

TOP = 10
CELLS = 4_000_000
"""Most scores computed at a time: queries x rows, 16 MB."""

PAIRED = 500
"""Most rows of which all pairs are compared."""

TOLERANCE = 1e-6
"""Two scores this close, relative to their scale, are the same score summed in another order."""


@dataclass(frozen=True)
class Recall:
    """Recall@10 of an index, and how much of the corpus no index can rank, since its vectors are equal.

    Attributes:
        at_10: share of the ten nearest rows that the index finds, from 0 to 1.
        equal_share: share of the queries' vectors that more than ten rows of the corpus have.
        most_equal: rows that have the most common vector among the queries.
        similarities: percentiles 0 to 100 of the scores of pairs of different queries, larger being nearer; empty if
            there is one query.
    """

    at_10: float
    equal_share: float = 0.0
    most_equal: int = 1
    similarities: tuple[float, ...] = ()

    @property
    def many_are_equal(self) -> bool:
        """Whether equal vectors may explain the loss of an index: at least half of it."""
        return self.equal_share > 0 and self.equal_share >= (1 - self.at_10) / 2


def measure_recall(
    connection: Milvus,
    spec: CollectionSpec,
    parts: Callable[[], Iterator[pa.Table]],
    total_rows: int,
    sample: int,
    seed: int = 0,
    column: VectorColumn | None = None,
    filter: str = "",
) -> Recall | None:
    """Recall@10 of a vector's index, with vectors of the corpus as queries; None of a corpus without a row.

    A hit counts where its exact score is as good as the tenth best exact one, so among equal vectors (the same text
    many times) any counts. The query's own row counts like every other.

    Args:
        parts: gives the same tables each time it is called, with the columns id and the vector.
        total_rows: rows in all parts; with fewer than ten, recall is measured at that many.
        sample: how many rows serve as queries (all, if there are fewer), drawn by `seed`.
        column: the vector; the first one of the collection where None.
        filter: a Milvus expression that each search has; `parts` and `total_rows` are then of the rows that match.

    Raises:
        CollectionError: if the search fails.
        ConfigurationError: if Milvus does not understand the filter.
    """
    if total_rows == 0 or sample == 0:
        return None
    k = min(TOP, total_rows)
    column = column or spec.vectors[0]
    queries = _sample(parts(), column, total_rows, sample, seed)
    parameters = effective_parameters(column.index_type, column.search_parameters, k)
    hits = search_many(connection, spec.name, queries, k, parameters, filter, field_name=column.name)
    best, of_hits, equal = _exact(parts(), column, queries, [[hit.id for hit in row] for row in hits], k)
    good = of_hits >= (best[:, -1] - TOLERANCE * _scales(queries, best[:, -1], column.metric))[:, None]
    return Recall(
        float(good.sum() / (len(queries) * k)),
        float((equal > TOP).mean()),
        int(equal.max()),
        _similarities(queries, column),
    )


def _similarities(queries: Vectors, column: VectorColumn) -> tuple[float, ...]:
    some = queries[:PAIRED]
    if len(some) < 2:
        return ()
    scores, _ = _Products(some, column).of(some)
    pairs = scores[np.triu_indices(len(some), 1)]
    return tuple(round(float(one), 6) for one in np.percentile(pairs, np.arange(101)))


def _scales(queries: Vectors, tenth: Floats, metric: str) -> Floats:
    """The scale of scores and of their inputs, which determines how much equal scores may differ."""
    scales = np.maximum(1.0, np.abs(tenth))
    return np.asarray(
        np.maximum(scales, _squares(queries)) if metric == "L2" and isinstance(queries, np.ndarray) else scales,
        dtype=np.float32,
    )


def _sample(parts: Iterator[pa.Table], column: VectorColumn, total_rows: int, sample: int, seed: int) -> Vectors:
    chosen = np.sort(np.random.default_rng(seed).choice(total_rows, min(sample, total_rows), replace=False))
    found: list[Any] = []
    start = 0
    for part in parts:
        end = start + part.num_rows
        here = chosen[(chosen >= start) & (chosen < end)] - start
        if len(here):
            found.append(vectors_of(part.take(pa.array(here)), column))
        start = end
    return pa.concat_arrays(found) if column.kind == "sparse" else np.concatenate(found)


def _exact(
    parts: Iterator[pa.Table], column: VectorColumn, queries: Vectors, hits: list[list[str]], k: int
) -> tuple[Floats, Floats, Integers]:
    """Exact scores, larger being nearer: the k best of all rows, descending, and those of the hits, each [n, k]; and
    how many rows have the vector of each query, [n].

    A hit that isn't among the rows scores minus infinity.
    """
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    of_hits = np.full((len(queries), k), -np.inf, dtype=np.float32)
    equal = np.zeros(len(queries), dtype=np.int64)
    places: dict[str, list[tuple[int, int]]] = {}
    for query, row in enumerate(hits):
        for rank, row_id in enumerate(dict.fromkeys(row)):
            places.setdefault(row_id, []).append((query, rank))
    products = _Products(queries, column)
    step = max(1, CELLS // len(queries))
    for part in parts:
        for piece in (part.slice(start, step) for start in range(0, part.num_rows, step)):
            scores, alike = products.of(vectors_of(piece, column))
            equal += alike
            for at, row_id in enumerate(piece.column("id").to_pylist()):
                for query, rank in places.get(row_id, ()):
                    of_hits[query, rank] = scores[query, at]
            merged = np.concatenate([best, scores], axis=1)
            best = np.partition(merged, merged.shape[1] - k, axis=1)[:, -k:]
    return -np.sort(-best, axis=1), of_hits, equal


class _Products:
    """Exact scores of queries with rows, and how many of these rows are each query's vector.

    Sparse queries are spread once over the positions that any of them has; a row's other numbers meet zeros.
    """

    def __init__(self, queries: Vectors, column: VectorColumn) -> None:
        self._metric = column.metric
        self._positions: NDArray[np.uint32] | None = None
        if isinstance(queries, np.ndarray):
            self._queries = _normalised(queries) if column.metric == "COSINE" else queries
            return
        self._positions = np.unique(queries.field("indices").flatten().to_numpy(zero_copy_only=False))
        self._queries = self._spread(queries)[0]

    def of(self, vectors: Vectors) -> tuple[Floats, Integers]:
        """Scores [queries, rows], larger being nearer, and for each query how many rows equal it."""
        if isinstance(vectors, np.ndarray):
            rows = _normalised(vectors) if self._metric == "COSINE" else vectors
            scores = _scores(self._queries, rows, self._metric)
            return scores, _equal(self._queries, _squares(rows), scores, self._metric)
        rows, squares = self._spread(vectors)
        scores = self._queries @ rows.T
        return scores, _equal(self._queries, squares, scores, self._metric)

    def _spread(self, vectors: pa.StructArray) -> tuple[Floats, Floats]:
        """Sparse vectors as float32[n, positions], and the squared length of each whole vector."""
        assert self._positions is not None
        indices = vectors.field("indices")
        at = indices.flatten().to_numpy(zero_copy_only=False)
        numbers = vectors.field("values").flatten().to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(vectors)), indices.value_lengths().to_numpy())
        spread = np.zeros((len(vectors), len(self._positions)), np.float32)
        places = np.minimum(np.searchsorted(self._positions, at), len(self._positions) - 1)
        known = self._positions[places] == at
        spread[rows[known], places[known]] = numbers[known]
        return spread, np.bincount(rows, weights=numbers * numbers, minlength=len(vectors)).astype(np.float32)


def _equal(queries: Floats, lengths: Floats, scores: Floats, metric: str) -> Integers:
    """How many rows, of these squared lengths, are each query's vector or too near to tell apart by a score, [n]."""
    squares = _squares(queries)
    # The squared distance, from the scores: -s for L2, and q.q + r.r - 2 s for products.
    if metric == "L2":
        near = scores >= -(TOLERANCE * np.maximum(1.0, squares))[:, None]
    else:
        near = 2.0 * scores >= ((1.0 - TOLERANCE) * squares)[:, None] + lengths[None, :]
    return np.asarray(near.sum(axis=1), dtype=np.int64)


def _squares(vectors: Floats) -> Floats:
    squares: Floats = np.einsum("ij,ij->i", vectors, vectors)
    return squares


def _scores(queries: Floats, rows: Floats, metric: str) -> Floats:
    products: Floats = queries @ rows.T
    if metric != "L2":
        return products
    scores: Floats = 2.0 * products - (_squares(rows)[None, :] + _squares(queries)[:, None])
    return scores


def _normalised(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)
