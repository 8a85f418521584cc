"""Exact answers to queries: the nearest of all rows, part by part, in states that workers make and merge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.milvus import VectorColumn
from transforms.milvus.rows.message import Vectors
from transforms.milvus.rows.upsert import vectors_of

Floats = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

CELLS = 4_000_000
"""Most scores computed at a time: queries x rows, 16 MB."""

TOLERANCE = 1e-6
"""Two scores this close, relative to their scale, are the same score summed in another order."""

EXACT_SCHEMA = pa.schema(
    [
        # One row for each query.
        pa.field("best", pa.list_(pa.float32()), nullable=False),
        pa.field("of_hits", pa.list_(pa.float32()), nullable=False),
        pa.field("equal", pa.int64(), nullable=False),
    ]
)


class ExactAnswers:
    """Exact scores of queries among the rows of some parts, larger being nearer.

    Args:
        queries: vectors of the corpus.
        column: the vector's column.
        hits: ids that the index found for each query, at most `k`.
        k: how many of the nearest rows count.

    Attributes:
        best: the k best scores of all rows, float32[n, k], in any order.
        of_hits: scores of the hits, float32[n, k]; minus infinity for a hit that isn't among the rows.
        equal: how many rows have the vector of each query, int64[n].
    """

    def __init__(self, queries: Vectors, column: VectorColumn, hits: Sequence[Sequence[str]], k: int) -> None:
        self._column = column
        self._k = k
        self._count = len(queries)
        self._products = Products(queries, column)
        self.best: Floats
        self.of_hits: Floats
        self.equal: Integers
        self.ask_again(hits)
        self.clear()

    def ask_again(self, hits: Sequence[Sequence[str]]) -> None:
        """Takes other hits of the same queries: `add_hits` finds their scores, and what was found of rows stays."""
        self._places: dict[str, list[tuple[int, int]]] = {}
        for query, row in enumerate(hits):
            for rank, row_id in enumerate(dict.fromkeys(row)):
                self._places.setdefault(row_id, []).append((query, rank))
        self._hits = pa.array(list(self._places), pa.string())
        self.of_hits = np.full((self._count, self._k), -np.inf, dtype=np.float32)

    def clear(self) -> None:
        """Forgets all rows."""
        self.best = np.full((self._count, self._k), -np.inf, dtype=np.float32)
        self.of_hits = np.full((self._count, self._k), -np.inf, dtype=np.float32)
        self.equal = np.zeros(self._count, dtype=np.int64)

    def add(self, part: pa.Table) -> None:
        """Adds the rows of a part, a table with the columns id and the vector."""
        step = max(1, CELLS // self._count)
        for piece in (part.slice(start, step) for start in range(0, part.num_rows, step)):
            scores, alike = self._products.of(vectors_of(piece, self._column))
            self.equal += alike
            ids = piece.column("id")
            for at in np.flatnonzero(pc.is_in(ids, value_set=self._hits).to_numpy()):
                for query, rank in self._places[ids[at].as_py()]:
                    self.of_hits[query, rank] = scores[query, at]
            self._keep(scores)

    def add_hits(self, part: pa.Table) -> None:
        """Adds the scores of those hits that are rows of a part, of which `add` had all rows before."""
        here = np.flatnonzero(pc.is_in(part.column("id"), value_set=self._hits).to_numpy())
        rows = part.take(pa.array(here))
        pairs = [
            (row, query, rank)
            for row, row_id in enumerate(rows.column("id").to_pylist())
            for query, rank in self._places[row_id]
        ]
        if pairs:
            at, queries, ranks = np.array(pairs, np.int64).T
            self.of_hits[queries, ranks] = self._products.of_pairs(vectors_of(rows, self._column), at, queries)

    def merge(self, other: pa.Table) -> None:
        """Adds what was found among other rows, a table of `EXACT_SCHEMA`."""
        best, of_hits = (
            other.column(name).combine_chunks().flatten().to_numpy().reshape(self._count, self._k)
            for name in ("best", "of_hits")
        )
        self._keep(best)
        self.of_hits = np.maximum(self.of_hits, of_hits)
        self.equal = self.equal + other.column("equal").to_numpy()

    def as_table(self) -> pa.Table:
        """What was found, a table of `EXACT_SCHEMA`."""
        offsets = pa.array(np.arange(self._count + 1, dtype=np.int32) * self._k)
        lists = [pa.ListArray.from_arrays(offsets, pa.array(found.reshape(-1))) for found in (self.best, self.of_hits)]
        return pa.table([*lists, pa.array(self.equal)], schema=EXACT_SCHEMA)

    def _keep(self, scores: Floats) -> None:
        merged = np.concatenate([self.best, scores], axis=1)
        self.best = np.partition(merged, merged.shape[1] - self._k, axis=1)[:, -self._k :]


class Products:
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
            return scores, _equal(self._queries, squares(rows), scores, self._metric)
        rows, lengths = self._spread(vectors)
        scores = self._queries @ rows.T
        return scores, _equal(self._queries, lengths, scores, self._metric)

    def of_pairs(self, vectors: Vectors, rows: Integers, queries: Integers) -> Floats:
        """Scores of pairs of a row and a query, float32[pairs].

        Args:
            rows: positions in `vectors`.
            queries: positions of their queries.
        """
        matrix = vectors if isinstance(vectors, np.ndarray) else self._spread(vectors)[0]
        matrix = _normalised(matrix) if self._metric == "COSINE" else matrix
        step = max(1, CELLS // max(1, matrix.shape[1]))
        found = [np.zeros(0, np.float32)]
        for start in range(0, len(rows), step):
            one, other = matrix[rows[start : start + step]], self._queries[queries[start : start + step]]
            products = np.einsum("ij,ij->i", one, other)
            found.append(2.0 * products - (squares(one) + squares(other)) if self._metric == "L2" else products)
        return np.concatenate(found)

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
    own = squares(queries)
    # The squared distance, from the scores: -s for L2, and q.q + r.r - 2 s for products.
    if metric == "L2":
        near = scores >= -(TOLERANCE * np.maximum(1.0, own))[:, None]
    else:
        near = 2.0 * scores >= ((1.0 - TOLERANCE) * own)[:, None] + lengths[None, :]
    return np.asarray(near.sum(axis=1), dtype=np.int64)


def squares(vectors: Floats) -> Floats:
    """The squared length of each vector, float32[n]."""
    found: Floats = np.einsum("ij,ij->i", vectors, vectors)
    return found


def _scores(queries: Floats, rows: Floats, metric: str) -> Floats:
    products: Floats = queries @ rows.T
    if metric != "L2":
        return products
    scores: Floats = 2.0 * products - (squares(rows)[None, :] + squares(queries)[:, None])
    return scores


def _normalised(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)
