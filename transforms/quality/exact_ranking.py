"""Exact search for items: the nearest of all vectors of a checkpoint, streamed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.support.vectors import unit_vectors

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
DEPTH = 100
"""Items of a ranking."""
QUERIES_AT_ONCE = 256
"""With 65,536 rows at once, 64 MB of scores."""


def rank_items(
    rows: Iterable[tuple[pa.Array, Floats]], queries: Floats, metric: str, depth: int = DEPTH
) -> list[list[str]]:
    """The items nearest to each query, by the best of their rows.

    Holds one table of rows, and `depth` items for each query, at a time.

    Args:
        rows: item ids, string[n], and vectors, float32[n, dimensions], of some rows; an item may be in several.
        queries: float32[queries, dimensions].
        metric: COSINE, IP or L2.

    Returns:
        For each query ids of items, best first; equal scores in the order of the ids.
    """
    queries = unit_vectors(queries) if metric == "COSINE" else queries
    names: list[str] = []
    best_scores = np.zeros((len(queries), 0), np.float32)
    best_codes = np.zeros((len(queries), 0), np.int64)
    for item_ids, vectors in rows:
        if not len(vectors):
            continue
        known = {name: code for code, name in enumerate(names)}
        encoded = pc.dictionary_encode(item_ids)
        here = encoded.dictionary.to_pylist()
        codes = np.array([known.setdefault(name, len(known)) for name in here], np.int64)
        names += [name for name in here if known[name] >= len(names)]
        scores = _best_of_items(encoded.indices.to_numpy().astype(np.int64), vectors, queries, metric, depth)
        best_scores, best_codes = _merged(best_scores, best_codes, scores[0], codes[scores[1]], depth)
        names, best_codes = _pruned(names, best_codes)
    return [
        [names[code] for code in sorted(row_codes, key=lambda code: (-by_code[code], names[code]))]
        for row_codes, by_code in (
            (codes.tolist(), dict(zip(codes.tolist(), scores.tolist(), strict=True)))
            for codes, scores in zip(best_codes, best_scores, strict=True)
        )
    ]


def _best_of_items(
    codes: Integers, vectors: Floats, queries: Floats, metric: str, depth: int
) -> tuple[Floats, Integers]:
    """Scores of the best items of a table, and their codes in it: float32 and int64[queries, up to depth]."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    ordered = vectors if (order == np.arange(len(order))).all() else vectors[order]
    ordered = unit_vectors(ordered) if metric == "COSINE" else ordered
    squares = (ordered**2).sum(axis=1) if metric == "L2" else None
    found_scores, found_codes = [], []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = queries[start : start + QUERIES_AT_ONCE]
        scores = some @ ordered.T
        if squares is not None:
            scores = 2 * scores - squares
        if len(starts) < len(order):
            scores = np.maximum.reduceat(scores, starts, axis=1)
        width = min(depth, scores.shape[1])
        top = np.argpartition(scores, scores.shape[1] - width, axis=1)[:, scores.shape[1] - width :]
        found_scores.append(np.take_along_axis(scores, top, axis=1))
        found_codes.append(top)
    return np.concatenate(found_scores).astype(np.float32), np.concatenate(found_codes)


def _merged(
    scores: Floats, codes: Integers, more_scores: Floats, more_codes: Integers, depth: int
) -> tuple[Floats, Integers]:
    """The best of two lists of items for each query, each item once, with the better of its scores."""
    all_scores = np.concatenate([scores, more_scores], axis=1)
    all_codes = np.concatenate([codes, more_codes], axis=1)
    if scores.shape[1]:
        # Best score first within each code, so that the later ones of an item are the ones to leave out.
        order = np.lexsort((-all_scores, all_codes), axis=1)
        all_scores = np.take_along_axis(all_scores, order, axis=1)
        all_codes = np.take_along_axis(all_codes, order, axis=1)
        again = np.diff(all_codes, axis=1, prepend=-1) == 0
        all_scores = np.where(again, -np.inf, all_scores)
    # Of a few items there are fewer than `depth` different ones: what is left out goes last, and off below.
    width = min(depth, int((all_scores > -np.inf).sum(axis=1).min()))
    order = np.argsort(-all_scores, axis=1, kind="stable")[:, :width]
    return (
        np.take_along_axis(all_scores, order, axis=1).astype(np.float32),
        np.take_along_axis(all_codes, order, axis=1),
    )


def _pruned(names: list[str], codes: Integers) -> tuple[list[str], Integers]:
    """Only the names that are still in a list, and the codes of these."""
    used, inverse = np.unique(codes, return_inverse=True)
    return [names[code] for code in used.tolist()], inverse.reshape(codes.shape).astype(np.int64)
