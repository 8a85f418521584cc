"""Recall of an index against exact search, streamed over the checkpoint's vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from schemas import config as settings
from schemas.collection import CollectionSpec
from transforms.collection.rows.loading import vectors_of
from transforms.collection.searching import effective_parameters, search_many

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Floats = np.ndarray[Any, np.dtype[np.float32]]

TOP = 10
CELLS = 4_000_000
"""Most scores computed at a time: queries x rows, 16 MB."""

TOLERANCE = 1e-6
"""Two scores this close, relative to their scale, are the same one summed in another order."""


def measure_recall(
    client: MilvusClient,
    config: settings.Collection,
    spec: CollectionSpec,
    parts: Callable[[], Iterator[pa.Table]],
    total_rows: int,
    sample: int,
    seed: int = 0,
) -> float:
    """Recall@10 of the collection's index, from 0 to 1, with vectors of the corpus as queries.

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
        return 1.0
    k = min(TOP, total_rows)
    queries = _sample(parts(), spec.dimensions, total_rows, sample, seed)
    parameters = effective_parameters(spec.index_type, spec.search_parameters, k)
    hits = search_many(client, config, spec.name, queries, k, parameters)
    best, of_hits = _exact(parts(), spec, queries, [[hit.id for hit in row] for row in hits], k)
    scale = np.maximum(1.0, np.abs(best[:, -1]))
    if spec.metric == "L2":
        scale = np.maximum(scale, np.einsum("ij,ij->i", queries, queries))
    good = of_hits >= (best[:, -1] - TOLERANCE * scale)[:, None]
    return float(good.sum() / (len(queries) * k))


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
) -> tuple[Floats, Floats]:
    """Exact scores, larger being nearer: the k best of all rows, descending, and those of the hits, each [n, k].

    A hit that isn't among the rows scores minus infinity.
    """
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    of_hits = np.full((len(queries), k), -np.inf, dtype=np.float32)
    places: dict[str, list[tuple[int, int]]] = {}
    for query, row in enumerate(hits):
        for rank, row_id in enumerate(dict.fromkeys(row)):
            places.setdefault(row_id, []).append((query, rank))
    prepared = _normalised(queries) if spec.metric == "COSINE" else queries
    step = max(1, CELLS // len(queries))
    for part in parts:
        for piece in (part.slice(start, step) for start in range(0, part.num_rows, step)):
            scores = _scores(prepared, vectors_of(piece, spec.dimensions), spec.metric)
            for column, row_id in enumerate(piece.column("id").to_pylist()):
                for query, rank in places.get(row_id, ()):
                    of_hits[query, rank] = scores[query, column]
            merged = np.concatenate([best, scores], axis=1)
            best = np.partition(merged, merged.shape[1] - k, axis=1)[:, -k:]
    return -np.sort(-best, axis=1), of_hits


def _scores(queries: Floats, rows: Floats, metric: str) -> Floats:
    if metric == "COSINE":
        rows = _normalised(rows)
    products: Floats = queries @ rows.T
    if metric != "L2":
        return products
    squares: Floats = np.einsum("ij,ij->i", rows, rows)[None, :] + np.einsum("ij,ij->i", queries, queries)[:, None]
    scores: Floats = 2.0 * products - squares
    return scores


def _normalised(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)
