"""Recall of an index against exact search, streamed over the checkpoint's vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from schemas.config import Collection
from schemas.milvus import CollectionSpec
from transforms.milvus.nearest import effective_parameters, search_many
from transforms.milvus.rows.upsert import vectors_of

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Floats = np.ndarray[Any, np.dtype[np.float32]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

TOP = 10
CELLS = 4_000_000
"""Most scores computed at a time: queries x rows, 16 MB."""

TOLERANCE = 1e-6
"""Two scores this close, relative to their scale, are the same one summed in another order."""


@dataclass(frozen=True)
class Recall:
    """Recall@10 of an index, and how much of the corpus no index can rank, since its vectors are equal.

    Attributes:
        at_10: share of the ten nearest rows that the index finds, from 0 to 1.
        equal_share: share of the queries' vectors that more than ten rows of the corpus have.
        most_equal: rows that have the commonest vector among the queries.
    """

    at_10: float
    equal_share: float = 0.0
    most_equal: int = 1

    @property
    def many_are_equal(self) -> bool:
        """Whether equal vectors may be what an index loses; for half of what is lost they are enough."""
        return self.equal_share > 0 and self.equal_share >= (1 - self.at_10) / 2


def measure_recall(
    client: MilvusClient,
    config: Collection,
    spec: CollectionSpec,
    parts: Callable[[], Iterator[pa.Table]],
    total_rows: int,
    sample: int,
    seed: int = 0,
) -> Recall | None:
    """Recall@10 of the collection's index, with vectors of the corpus as queries; None of a corpus without a row.

    A hit counts where its exact score is as good as the tenth best exact one, so among equal vectors (the same text
    many times) any will do. The query's own row counts like every other.

    Args:
        parts: gives the same tables each time it is called, with the columns id and vector (lists of float32).
        total_rows: rows in all parts; with fewer than ten, recall is measured at that many.
        sample: how many rows serve as queries (all, where there are fewer), drawn by `seed`.

    Raises:
        CollectionError: where the search fails.
    """
    if total_rows == 0 or sample == 0:
        return None
    k = min(TOP, total_rows)
    queries = _sample(parts(), spec.dimensions, total_rows, sample, seed)
    parameters = effective_parameters(spec.index_type, spec.search_parameters, k)
    hits = search_many(client, config, spec.name, queries, k, parameters)
    best, of_hits, equal = _exact(parts(), spec, queries, [[hit.id for hit in row] for row in hits], k)
    good = of_hits >= (best[:, -1] - TOLERANCE * _scales(queries, best[:, -1], spec.metric))[:, None]
    return Recall(float(good.sum() / (len(queries) * k)), float((equal > TOP).mean()), int(equal.max()))


def _scales(queries: Floats, tenth: Floats, metric: str) -> Floats:
    """How large scores and what they are made from are; what they may differ by goes with it."""
    scales = np.maximum(1.0, np.abs(tenth))
    return np.asarray(np.maximum(scales, _squares(queries)) if metric == "L2" else scales, dtype=np.float32)


def _sample(parts: Iterator[pa.Table], dimensions: int, total_rows: int, sample: int, seed: int) -> Floats:
    chosen = np.sort(np.random.default_rng(seed).choice(total_rows, min(sample, total_rows), replace=False))
    found: list[Floats] = []
    start = 0
    for part in parts:
        end = start + part.num_rows
        here = chosen[(chosen >= start) & (chosen < end)] - start
        if len(here):
            found.append(vectors_of(part.take(pa.array(here)), dimensions))
        start = end
    return np.concatenate(found)


def _exact(
    parts: Iterator[pa.Table], spec: CollectionSpec, queries: Floats, hits: list[list[str]], k: int
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
    prepared = _normalised(queries) if spec.metric == "COSINE" else queries
    step = max(1, CELLS // len(queries))
    for part in parts:
        for piece in (part.slice(start, step) for start in range(0, part.num_rows, step)):
            rows = vectors_of(piece, spec.dimensions)
            rows = _normalised(rows) if spec.metric == "COSINE" else rows
            scores = _scores(prepared, rows, spec.metric)
            equal += _equal(prepared, rows, scores, spec.metric)
            for column, row_id in enumerate(piece.column("id").to_pylist()):
                for query, rank in places.get(row_id, ()):
                    of_hits[query, rank] = scores[query, column]
            merged = np.concatenate([best, scores], axis=1)
            best = np.partition(merged, merged.shape[1] - k, axis=1)[:, -k:]
    return -np.sort(-best, axis=1), of_hits, equal


def _equal(queries: Floats, rows: Floats, scores: Floats, metric: str) -> Integers:
    """How many rows are each query's vector, or so near that no score tells them apart, [n]."""
    squares = _squares(queries)
    # The squared distance, from the scores at hand: -s for L2, and q.q + r.r - 2 s for products.
    if metric == "L2":
        near = scores >= -(TOLERANCE * np.maximum(1.0, squares))[:, None]
    else:
        near = 2.0 * scores >= ((1.0 - TOLERANCE) * squares)[:, None] + _squares(rows)[None, :]
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
