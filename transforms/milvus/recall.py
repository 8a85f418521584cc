"""Recall of an index against exact search, streamed over the checkpoint's vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.milvus import CollectionSpec, VectorColumn
from transforms.milvus.exact_answers import TOLERANCE, ExactAnswers, Floats, Products, squares
from transforms.milvus.nearest import effective_parameters, search_many
from transforms.milvus.rows.message import Vectors
from transforms.milvus.rows.upsert import vectors_of

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

TOP = 10
"""Rows that count of each query; its own row, which every index finds easily, is not one of them."""
PAIRED = 500
"""Most rows of which all pairs are compared."""


@dataclass(frozen=True)
class Recall:
    """Recall@10 of an index, and how much of the corpus no index can rank, since its vectors are equal.

    Attributes:
        at_10: share of the ten nearest rows that the index finds, from 0 to 1.
        equal_share: share of the queries' vectors that more than ten rows of the corpus have.
        most_equal: rows that have the most common vector among the queries.
        similarities: percentiles 0 to 100 of the scores of pairs of different queries, larger being nearer; empty if
            there is one query.
        queries: how many there were.
        deviation: standard deviation of the recalls of single queries.
    """

    at_10: float
    equal_share: float = 0.0
    most_equal: int = 1
    similarities: tuple[float, ...] = ()
    queries: int = 1
    deviation: float = 0.0

    @property
    def many_are_equal(self) -> bool:
        """Whether equal vectors may explain the loss of an index: at least half of it."""
        return self.equal_share > 0 and self.equal_share >= (1 - self.at_10) / 2

    @property
    def error(self) -> float:
        """Standard error of `at_10` as the recall of other queries of the same kind.

        >>> Recall(0.97, queries=400, deviation=0.1).error
        0.005
        """
        return self.deviation / math.sqrt(self.queries)


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
    many times) any counts. The query's own row is neither a hit nor one of the ten, as a query of a user has none.

    Args:
        parts: gives the same tables each time it is called, with the columns id and the vector.
        total_rows: rows in all parts; with fewer than eleven, recall is measured at the number of the others. Of a
            single row it says whether the index finds it.
        sample: how many rows serve as queries (all, if there are fewer), drawn by `seed`.
        column: the vector; the first one of the collection where None.
        filter: a Milvus expression that each search has; `parts` and `total_rows` are then of the rows that match.

    Raises:
        CollectionError: if the search fails.
        ConfigurationError: if Milvus does not understand the filter.
    """
    repeated = RepeatedRecall(parts, total_rows, sample, filter, seed)
    return repeated.measure(connection, spec, column or spec.vectors[0])


class RepeatedRecall:
    """Recall@10 of one index after another, with the same queries: their exact answers are found once.

    Args:
        parts, total_rows, sample, filter, seed: see `measure_recall`.
    """

    def __init__(
        self,
        parts: Callable[[], Iterator[pa.Table]],
        total_rows: int,
        sample: int,
        filter: str = "",
        seed: int = 0,
    ) -> None:
        self._parts = parts
        self._total_rows = total_rows
        self._filter = filter
        self._chosen = _drawn(total_rows, sample, seed)
        self._rows: pa.Table | None = None
        self._exact: ExactAnswers | None = None

    def measure(self, connection: Milvus, spec: CollectionSpec, column: VectorColumn) -> Recall | None:
        """The recall of an index that is built; None of a corpus without a row.

        Args:
            column: the same vector each time; its index and search parameters may be others.
        """
        if not len(self._chosen):
            return None
        if self._rows is None:
            self._rows = _rows_at(self._parts(), self._chosen)
        asked = _asked(connection, spec, self._rows, self._total_rows, column, self._filter)
        if self._exact is None:
            self._exact = asked.exact()
            for part in self._parts():
                self._exact.add(part)
        else:
            self._exact.ask_again(asked.hits)
            for part in self._parts():
                self._exact.add_hits(part)
        return asked.recall(self._exact)


class Asked(NamedTuple):
    """Queries, and what the index answers.

    Attributes:
        column: the vector that was searched.
        queries: vectors of the corpus.
        hits: ids of the rows that the index found for each query; before them the id of its own row, if it has one.
        k: how many were wanted.
        own: whether each query is a row of the collection.
    """

    column: VectorColumn
    queries: Vectors
    hits: list[list[str]]
    k: int
    own: bool = False

    def exact(self) -> ExactAnswers:
        """A state for the exact answers, of no row yet."""
        return ExactAnswers(self.queries, self.column, self.hits, self.k + self.own)

    def recall(self, exact: ExactAnswers) -> Recall:
        """The recall, by the exact answers over all rows."""
        tenth = exact.best.min(axis=1)
        hits = exact.of_hits
        if self.own:
            # The best are one more. Without its own row, the last that counts is the last of them, or the one before.
            before = np.partition(exact.best, 1, axis=1)[:, 1]
            tenth = np.where(hits[:, 0] > tenth, tenth, before)
            hits = hits[:, 1:]
        least = tenth - TOLERANCE * _scales(self.queries, tenth, self.column.metric)
        found = (hits >= least[:, None]).sum(axis=1) / self.k
        return Recall(
            float(found.mean()),
            float((exact.equal > TOP).mean()),
            int(exact.equal.max()),
            _similarities(self.queries, self.column),
            len(found),
            float(found.std(ddof=1)) if len(found) > 1 else 0.0,
        )

    def as_table(self) -> pa.Table:
        """The queries with their hits, for workers."""
        vectors = self.queries
        if isinstance(vectors, np.ndarray):
            offsets = pa.array(np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1])
            vectors = pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1)))
        return pa.table({self.column.name: vectors, "hits": pa.array(self.hits, pa.list_(pa.string()))})

    @classmethod
    def of_table(cls, column: VectorColumn, table: pa.Table, total_rows: int) -> Asked:
        """What `as_table` gave, of a collection of so many rows."""
        return cls(column, vectors_of(table, column), table.column("hits").to_pylist(), *wanted(total_rows))


def wanted(total_rows: int) -> tuple[int, bool]:
    """How many rows count of each query among so many, and whether these are others than its own.

    >>> wanted(1000), wanted(4), wanted(1)
    ((10, True), (3, True), (1, False))
    """
    return min(TOP, max(1, total_rows - 1)), total_rows > 1


def ask(
    connection: Milvus,
    spec: CollectionSpec,
    rows_at: Callable[[NDArray[np.int64]], pa.Table],
    total_rows: int,
    sample: int,
    seed: int = 0,
    column: VectorColumn | None = None,
    filter: str = "",
) -> Asked | None:
    """Searches the nearest rows of a sample through the index; None of a corpus without a row. See `measure_recall`.

    Args:
        rows_at: gives the rows at some positions, ascending, among all rows of the parts.
    """
    chosen = _drawn(total_rows, sample, seed)
    if not len(chosen):
        return None
    return _asked(connection, spec, rows_at(chosen), total_rows, column or spec.vectors[0], filter)


def _drawn(total_rows: int, sample: int, seed: int) -> NDArray[np.int64]:
    """Positions of some rows, ascending."""
    return np.sort(np.random.default_rng(seed).choice(total_rows, min(sample, total_rows), replace=False))


def _asked(
    connection: Milvus, spec: CollectionSpec, rows: pa.Table, total_rows: int, column: VectorColumn, filter: str
) -> Asked:
    k, own = wanted(total_rows)
    queries = vectors_of(rows, column)
    parameters = effective_parameters(column.index_type, column.search_parameters, k + own)
    found = search_many(connection, spec.name, queries, k + own, parameters, filter, field_name=column.name)
    hits = [[hit.id for hit in row] for row in found]
    if own:
        ids = rows.column("id").to_pylist()
        hits = [[one, *[hit for hit in row if hit != one][:k]] for one, row in zip(ids, hits, strict=True)]
    return Asked(column, queries, hits, k, own)


def _similarities(queries: Vectors, column: VectorColumn) -> tuple[float, ...]:
    some = queries[:PAIRED]
    if len(some) < 2:
        return ()
    scores, _ = Products(some, column).of(some)
    pairs = scores[np.triu_indices(len(some), 1)]
    return tuple(round(float(one), 6) for one in np.percentile(pairs, np.arange(101)))


def _scales(queries: Vectors, tenth: Floats, metric: str) -> Floats:
    """The scale of scores and of their inputs, which determines how much equal scores may differ."""
    scales = np.maximum(1.0, np.abs(tenth))
    return np.asarray(
        np.maximum(scales, squares(queries)) if metric == "L2" and isinstance(queries, np.ndarray) else scales,
        dtype=np.float32,
    )


def _rows_at(parts: Iterator[pa.Table], chosen: NDArray[np.int64]) -> pa.Table:
    found: list[pa.Table] = []
    start = 0
    for part in parts:
        end = start + part.num_rows
        here = chosen[(chosen >= start) & (chosen < end)] - start
        if len(here):
            found.append(part.take(pa.array(here)))
        start = end
    return pa.concat_tables(found)
