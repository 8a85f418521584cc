"""The words of a corpus and the rows that have them, found in spite of typing errors by the trigrams of their letters.

The similarity of two words is the share of trigrams that they have in common, of all that they have, as in PostgreSQL's
pg_trgm: a word begins with two spaces and ends with one.
"""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.explore.live_rows import MOST_ROWS, LiveRows

log = logging.getLogger("vecbeam")
_WORD = re.compile(r"\w+")
_LEAST = 0.3
"""Similarity of words that count, as in pg_trgm."""
_CORRECTED = 0.4
"""Similarity of a word that replaces one which the corpus does not have."""
_NEAREST = 10
"""Words of the corpus that count for a word of the query."""
_SHORT = 0.3
"""How much a row counts for having few words: between 0 and 1."""


class WordIndex:
    """The words of ids and texts. Of a corpus with more than 200,000 rows it has the first 200,000, and logs that.

    Args:
        rows: of a snapshot.

    Raises:
        CheckpointError: if a part is missing or damaged.
    """

    def __init__(self, rows: LiveRows) -> None:
        self._ids: list[str] = []
        self._rows_of: dict[str, array[int]] = {}
        sizes = array("i")
        for row_id, text in _texts(rows):
            words = set(words_of(f"{row_id} {text}"))
            for word in words:
                self._rows_of.setdefault(word, array("i")).append(len(self._ids))
            sizes.append(len(words))
            self._ids.append(row_id)
        if len(rows) > MOST_ROWS:
            log.warning("--fuzzy finds words of %d of the %d rows", MOST_ROWS, len(rows))
        self._sizes = np.asarray(sizes, np.float64)
        self._words = list(self._rows_of)
        self._counts = np.zeros(len(self._words), np.int64)
        having: dict[str, array[int]] = {}
        for place, word in enumerate(self._words):
            for trigram in (found := trigrams(word)):
                having.setdefault(trigram, array("i")).append(place)
            self._counts[place] = len(found)
        self._having = {trigram: np.asarray(places, np.int64) for trigram, places in having.items()}

    def nearest(self, word: str) -> list[tuple[str, float]]:
        """Words of the corpus, each with its similarity to a word, the most similar first; at most ten."""
        own = trigrams(word)
        places = [self._having[one] for one in own if one in self._having]
        if not places:
            return []
        shared = np.bincount(np.concatenate(places), minlength=len(self._words))
        scores = shared / (len(own) + self._counts - shared)
        best = np.argsort(-scores, kind="stable")[:_NEAREST]
        return [(self._words[at], float(scores[at])) for at in best.tolist() if scores[at] >= _LEAST]

    def corrected(self, query: str) -> str:
        """A query whose words that the corpus does not have are replaced by the most similar ones that it has."""

        def known(match: re.Match[str]) -> str:
            word = match[0].casefold()
            found = [] if word in self._rows_of else self.nearest(word)
            return found[0][0] if found and found[0][1] >= _CORRECTED else match[0]

        return _WORD.sub(known, query)

    def ranked(self, query: str, most: int) -> list[str]:
        """Ids of the rows with words that are similar to those of a query, best first.

        A row scores, for each word of the query, the largest product of a word's similarity and its inverse document
        frequency; rows with fewer words come first among equals.
        """
        total = np.zeros(len(self._ids))
        for word in dict.fromkeys(words_of(query)):
            best = np.zeros(len(self._ids))
            for found, similarity in self.nearest(word):
                rows = np.asarray(self._rows_of[found], np.int64)
                weight = similarity**2 * np.log(1 + len(self._ids) / len(rows))
                best[rows] = np.maximum(best[rows], weight)
            total += best
        total *= 1 - _SHORT + _SHORT / np.sqrt(np.maximum(self._sizes, 1))
        order: NDArray[np.int64] = np.argsort(-total, kind="stable")[:most]
        return [self._ids[at] for at in order.tolist() if total[at] > 0]


def words_of(text: str) -> list[str]:
    """The words of a text, without case."""
    return _WORD.findall(text.casefold())


def trigrams(word: str) -> set[str]:
    """The trigrams of a word.

    >>> sorted(trigrams("cat"))
    ['  c', ' ca', 'at ', 'cat']
    """
    padded = f"  {word} "
    return {padded[at : at + 3] for at in range(len(padded) - 2)}


def _texts(rows: LiveRows) -> Iterator[tuple[str, str]]:
    left = MOST_ROWS
    names = [name for name in ("id", "text") if name in rows.schema.names]
    for table in rows.tables(names):
        some: Sequence[dict[str, Any]] = table.slice(0, left).to_pylist()
        left -= len(some)
        yield from ((str(one["id"]), str(one.get("text") or "")) for one in some)
        if not left:
            return
