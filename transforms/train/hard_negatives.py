"""Hard negatives: for each pair the texts nearest to its query that do not answer it, from a file or a collection.

As `mine_hard_negatives` of sentence-transformers with `relative_margin=0.05`: a text that is nearly as near as the
positive may answer the query too and is passed over (Moreira et al., NV-Retriever, 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.quality.exact_ranking import QUERIES_AT_ONCE
from transforms.support.fingerprints import fingerprints
from transforms.train.passages import Passages
from transforms.train.training_pairs import Pair, same

Floats = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Floats]
Positions = NDArray[np.int64]
MARGIN = 0.05
_NONE = np.zeros(0, np.int64)
_SPARE = 16
"""Candidates of a pair in addition to those wanted: some are copies, or of an item that answers the query."""


class MinedTable(NamedTuple):
    """Some of the texts that may be negatives.

    Attributes:
        items: the item that each is of: where one text of an item answers a query, no other one is a negative.
        vectors: float32[n, dimensions], of length 1.
    """

    items: Sequence[str]
    texts: Sequence[str]
    vectors: Floats


@dataclass(frozen=True)
class NegativeSource:
    """Where negatives are mined.

    Attributes:
        name: what it is, for the record of the model.
        queries, positives: embed texts in the space of the tables; float32[n, dimensions] of length 1, or 0 for a text
            that can't be embedded.
        tables: gives all texts, the same in the same order at each call.
    """

    name: str
    queries: Embed
    positives: Embed
    tables: Callable[[], Iterator[MinedTable]]


def with_negatives(
    pairs: Sequence[Pair],
    count: int,
    source: NegativeSource,
    answers: Mapping[str, Collection[str]],
    hidden: Collection[str],
) -> tuple[list[Pair], int]:
    """The pairs, with negatives for those that have none: a pair for each negative.

    Holds one table at a time, and some candidates for each pair.

    Args:
        count: negatives of a pair, at most.
        answers: the texts that answer each query, by `same` of the query.
        hidden: texts that are held out. Neither these nor what shares a passage with them becomes a negative.

    Returns:
        The pairs, and the number of negatives.
    """
    without = [pair for pair in pairs if not pair.negative]
    negatives = iter(_mined(without, count, source, answers, hidden) if without else ())
    found: list[Pair] = []
    mined = 0
    for pair in pairs:
        texts = [] if pair.negative else next(negatives)
        mined += len(texts)
        found += [Pair(pair.query, pair.positive, text) for text in texts] or [pair]
    return found, mined


def _mined(
    pairs: Sequence[Pair],
    count: int,
    source: NegativeSource,
    answers: Mapping[str, Collection[str]],
    hidden: Collection[str],
) -> list[list[str]]:
    """The negatives of each pair."""
    refusal = _Refusal.of(pairs, answers, hidden)
    queries = source.queries([pair.query for pair in pairs])
    own = (queries * source.positives([pair.positive for pair in pairs])).sum(axis=1)
    limits = own - MARGIN * np.abs(own)
    best = _Best(len(pairs), count + _SPARE)
    first = 0
    for table in source.tables():
        known = refusal.seen(table)
        codes = fingerprints(table.items)
        for start in range(0, len(pairs), QUERIES_AT_ONCE):
            some = slice(start, min(start + QUERIES_AT_ONCE, len(pairs)))
            scores = queries[some] @ table.vectors.T
            scores[scores >= limits[some, None]] = -np.inf
            for row, refused in known:
                here = slice(None) if refused is None else _within(refused, some)
                scores[here, row] = -np.inf
            best.add(some, scores, first, codes)
        first += len(table.texts)
    return _chosen(best, refusal, source, count)


@dataclass(frozen=True)
class _Refusal:
    """For which pairs a text is not a negative.

    Attributes:
        passages: of the texts that are held out, or answer a query, or are one.
        pairs_of: by the positions of these, the positions of the pairs; None for all pairs.
        of_items: the same by the fingerprint of an item; filled while tables are seen.
    """

    passages: Passages
    pairs_of: Sequence[Positions | None]
    of_items: dict[int, Positions | None]

    @classmethod
    def of(cls, pairs: Sequence[Pair], answers: Mapping[str, Collection[str]], hidden: Collection[str]) -> _Refusal:
        numbers: dict[str, set[int]] = {}
        for at, pair in enumerate(pairs):
            for text in (pair.query, pair.positive, *answers.get(same(pair.query), ())):
                numbers.setdefault(same(text), set()).add(at)
        positions: dict[str, Positions | None] = {text: np.array(sorted(own)) for text, own in numbers.items()}
        positions |= {same(text): None for text in hidden}
        return cls(Passages([*positions]), [*positions.values()], {})

    def seen(self, table: MinedTable) -> list[tuple[int, Positions | None]]:
        """The rows of a table that can't be negatives of some pairs, with the positions of these."""
        codes = fingerprints(table.items).tolist()
        for code, text in zip(codes, table.texts, strict=True):
            for number in self.passages.shared(text):
                before, more = self.of_items.get(code, _NONE), self.pairs_of[number]
                self.of_items[code] = None if before is None or more is None else np.union1d(before, more)
        return [(row, self.of_items[code]) for row, code in enumerate(codes) if code in self.of_items]

    def has(self, item: int, pair: int) -> bool:
        """Whether an item, by its fingerprint, answers the query of a pair or is held out."""
        refused = self.of_items.get(item, _NONE)
        return refused is None or pair in refused


def _within(positions: Positions, some: slice) -> Positions:
    """The positions that a slice has, from its start on."""
    inside = (positions >= some.start) & (positions < some.stop)
    return np.asarray(positions[inside] - some.start, np.int64)


class _Best:
    """The best rows of each pair: scores, positions and fingerprints of items, [pairs, width]."""

    def __init__(self, pairs: int, width: int) -> None:
        self.scores = np.full((pairs, width), -np.inf, np.float32)
        self.rows = np.zeros((pairs, width), np.int64)
        self.items = np.zeros((pairs, width), np.int64)

    def add(self, some: slice, scores: Floats, first: int, items: NDArray[np.int64]) -> None:
        """Adds the rows of a table.

        Args:
            some: which pairs.
            scores: float32[pairs, rows of the table].
            first: position of the first row.
            items: int64[rows of the table].
        """
        width = min(self.scores.shape[1], scores.shape[1])
        top = np.argpartition(scores, scores.shape[1] - width, axis=1)[:, scores.shape[1] - width :]
        merged = np.concatenate([self.scores[some], np.take_along_axis(scores, top, axis=1)], axis=1)
        rows = np.concatenate([self.rows[some], top + first], axis=1)
        codes = np.concatenate([self.items[some], items[top]], axis=1)
        order = np.lexsort((rows, -merged), axis=1)[:, : self.scores.shape[1]]
        self.scores[some] = np.take_along_axis(merged, order, axis=1)
        self.rows[some] = np.take_along_axis(rows, order, axis=1)
        self.items[some] = np.take_along_axis(codes, order, axis=1)


def _chosen(best: _Best, refusal: _Refusal, source: NegativeSource, count: int) -> list[list[str]]:
    """The texts of the best rows: different ones, of items that do not answer the query."""
    texts = _texts(source, np.unique(best.rows[best.scores > -np.inf]))
    found: list[list[str]] = []
    for pair, (scores, rows, items) in enumerate(zip(best.scores, best.rows, best.items, strict=True)):
        own: dict[str, str] = {}
        for score, row, item in zip(scores.tolist(), rows.tolist(), items.tolist(), strict=True):
            # The text that answers may have been in a later table than others of its item.
            if len(own) < count and score > -np.inf and not refusal.has(item, pair):
                own.setdefault(same(texts[row]), texts[row])
        found.append(list(own.values()))
    return found


def _texts(source: NegativeSource, rows: Positions) -> dict[int, str]:
    """The texts at some positions, ascending."""
    found: dict[int, str] = {}
    first = 0
    for table in source.tables():
        here = rows[(rows >= first) & (rows < first + len(table.texts))]
        found |= {row: table.texts[row - first] for row in here.tolist()}
        first += len(table.texts)
    return found
