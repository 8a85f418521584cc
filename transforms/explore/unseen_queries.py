"""What queries that are not rows of a collection find through an index, from what rows find as queries.

A graph links each row to its neighbours, and lists are cut around the rows: a row finds more than a query from
outside with the same search. How much more is measured with faiss on a sample: some rows are left out of the index, and
are queries. The same width of the search gives two recalls, that of rows of the index and that of the others, and a
recall that Milvus has with rows as queries is translated by these pairs.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.explore.faiss_indexes import Positions, SampleIndex, build, comparable, one_thread, scores_of
from transforms.explore.index_sweep import LADDER, PROBES, SAMPLE_ROWS, TOP
from transforms.explore.live_rows import Floats, LiveRows
from transforms.support.fingerprints import fingerprints

INDEXED = 50_000
"""Most rows of the index. The fewer of a collection, the farther the nearest rows are, and the more is lost."""
OUTSIDE = 1_000
"""Most rows that are left out of the index under a filter, and most that are queries of it."""
SHARE = 4
"""At most one of so many rows is left out."""
FEWEST = 50
"""Rows that match, in the index and left out, below which nothing can be said of a filter."""
ENOUGH = 0.995
"""Recall of queries from outside at which wider searches have nothing to tell."""


@dataclass(frozen=True)
class UnseenRecall:
    """Recall of queries from outside, by that of rows as queries.

    Attributes:
        of_rows: recalls of rows, ascending; empty if nothing is known, and both are taken to be the same.
        of_unseen: those of queries from outside, with the same searches.

    >>> found = UnseenRecall((0.9, 0.98), (0.86, 0.97))
    >>> [round(found.of(recall), 3) for recall in (0.8, 0.9, 0.94, 1.0)]
    [0.76, 0.86, 0.915, 0.99]
    """

    of_rows: tuple[float, ...] = ()
    of_unseen: tuple[float, ...] = ()

    def of(self, recall: float) -> float:
        """What queries from outside find where rows find `recall`: never more."""
        if not self.of_rows:
            return recall
        rows, unseen = np.asarray(self.of_rows), np.asarray(self.of_unseen)
        loss = float(np.interp(recall, rows, np.maximum(0, rows - unseen)))
        return recall - loss


class SplitRows(NamedTuple):
    """A sample of the rows for an index, and rows that it does not have.

    Attributes:
        rows: of the index, float32[n, dimensions].
        matching: positions in `rows` of those that a filter leaves, by filter; None for all.
        outside: by filter, rows that match it and are not in `rows`, float32[m, dimensions].
    """

    rows: Floats
    matching: Mapping[str, Positions | None]
    outside: Mapping[str, Floats]


def positions_of(rows: LiveRows, matching: Mapping[str, NDArray[np.int64] | None]) -> dict[str, Positions]:
    """Positions in the snapshot of the rows that each filter leaves, ascending.

    Args:
        matching: fingerprints of the ids of these rows, by filter; None for all.
    """
    filters = {filter: ids for filter, ids in matching.items() if ids is not None}
    found: dict[str, list[Positions]] = {filter: [np.zeros(0, np.int64)] for filter in filters}
    start = 0
    for table in rows.tables(["id"]) if filters else ():
        ids = fingerprints(table.column("id").to_pylist())
        for filter, wanted in filters.items():
            found[filter].append(np.flatnonzero(np.isin(ids, wanted)) + start)
        start += table.num_rows
    every = np.arange(len(rows))
    return {filter: np.concatenate(found[filter]) if filter in found else every for filter in matching}


def split(rows: LiveRows, vector: str, positions: Mapping[str, Positions], seed: int = 0) -> SplitRows:
    """Draws rows for an index, and rows of each filter that it does not have.

    Args:
        vector: the name of a dense vector.
        positions: of `positions_of`.
    """
    random = np.random.default_rng(seed)
    drawn = {
        filter: np.sort(random.choice(of_filter, min(OUTSIDE, len(of_filter) // SHARE), replace=False))
        for filter, of_filter in positions.items()
    }
    left_out = np.unique(np.concatenate(list(drawn.values())))
    others = np.setdiff1d(np.arange(len(rows)), left_out, assume_unique=True)
    kept = np.sort(random.choice(others, min(INDEXED, len(others)), replace=False))
    taken = {filter: rows.sample(vector, most=OUTSIDE, among=some).vectors for filter, some in drawn.items()}
    matching = {
        filter: None if len(of_filter) == len(rows) else np.flatnonzero(np.isin(kept, of_filter))
        for filter, of_filter in positions.items()
    }
    return SplitRows(rows.sample(vector, most=INDEXED, among=kept).vectors, matching, taken)


def unseen_recalls(
    given: SplitRows, metric: str, kind: str, parameters: Mapping[str, int], total: int
) -> dict[str, UnseenRecall]:
    """How recalls of an index translate, by filter; a filter that leaves few rows has what was found for all rows.

    Args:
        metric: COSINE, IP or L2.
        kind: HNSW, IVF_FLAT or IVF_SQ8.
        parameters: of its build.
        total: rows of the collection; an IVF index of fewer has fewer lists, by the square root, as the sweep has.
    """
    if len(given.rows) < FEWEST:
        return dict.fromkeys(given.outside, UnseenRecall())
    vectors, number = comparable(given.rows, metric)
    widths: tuple[int, ...] = LADDER
    if lists := parameters.get("nlist"):
        fewer = max(1, min(len(vectors), round(lists * math.sqrt(len(vectors) / total))))
        parameters, widths = {"nlist": fewer}, (*(one for one in PROBES if one < fewer), fewer)
    found: dict[str, UnseenRecall] = {}
    # On several threads faiss takes longer for few rows, where it shares the machine.
    with one_thread() if len(vectors) <= SAMPLE_ROWS else contextlib.nullcontext():
        index = build(kind, parameters, vectors, number)
        for filter, outside in given.outside.items():
            among = given.matching[filter]
            rows = np.arange(len(vectors)) if among is None else among
            if min(len(rows), len(outside)) >= FEWEST:
                measured = _Measured(vectors, number, index, among, rows)
                found[filter] = measured.pairs(comparable(outside, metric)[0], widths)
    everywhere = found.get("", UnseenRecall())
    return {filter: found.get(filter, everywhere) for filter in given.outside}


@dataclass(frozen=True)
class _Measured:
    """An index of a sample, and the rows of it that a filter leaves."""

    vectors: Floats
    metric: int
    index: SampleIndex
    among: Positions | None
    rows: Positions

    def pairs(self, outside: Floats, widths: Sequence[int]) -> UnseenRecall:
        """The two recalls of searches that are wider and wider, until queries from outside find nearly all."""
        inside = np.sort(np.random.default_rng(0).choice(self.rows, min(OUTSIDE, len(self.rows)), replace=False))
        of_rows, of_unseen = self._searched(self.vectors[inside], inside), self._searched(outside, None)
        pairs: list[tuple[float, float]] = []
        for width in widths:
            pairs.append((of_rows(width), of_unseen(width)))
            if pairs[-1][1] > ENOUGH:
                break
        rows_found, unseen = np.maximum.accumulate(np.array(pairs)).T.tolist()
        return UnseenRecall(tuple(rows_found), tuple(unseen))

    def _searched(self, queries: Floats, own: Positions | None) -> Callable[[int], float]:
        """Recall by the width of the search; a query's own row is not counted."""
        k = min(TOP, len(self.rows) - 1)
        wanted = k + (own is not None)
        exact = build("FLAT", {}, self.vectors, self.metric).nearest(queries, wanted, among=self.among)
        tenth = np.sort(self._others(queries, exact, own), axis=1)[:, -k]
        least = (tenth - 1e-6 * np.maximum(1, np.abs(tenth)))[:, None]

        def recall(width: int) -> float:
            found = self._others(queries, self.index.nearest(queries, wanted, width, self.among), own)
            return float(np.minimum((found >= least).sum(axis=1), k).mean() / k)

        return recall

    def _others(self, queries: Floats, rows: Positions, own: Positions | None) -> Floats:
        if own is not None:
            rows = np.where(rows == own[:, None], -1, rows)
        return scores_of(self.vectors, queries, rows, self.metric)
