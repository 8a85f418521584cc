"""Arithmetic with the vectors of words: king - man + woman."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.steps.search.hits.kept_hits import LeftOut, comparable
from pipelines.steps.search.queries.query import Query, RowsQuery
from schemas.errors import ConfigurationError

SMALLEST = 1e-5
"""Length of a sum of vectors of length 1, under which it is rounding alone."""


class Arithmetic(NamedTuple):
    """What is added to each query, and what is subtracted from it."""

    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()

    @classmethod
    def of(cls, plus: str | Sequence[str], minus: str | Sequence[str]) -> Arithmetic:
        """From arguments of a search: a text, or several.

        Raises:
            ConfigurationError: if one is neither.
        """
        return cls(_several("plus", plus), _several("minus", minus))

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, first those that are added."""
        return (*self.plus, *self.minus)

    def sums(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The vectors to search with.

        Args:
            vectors: float32[queries + texts, dimensions].

        Returns:
            float32[queries, dimensions]: sums of vectors of length 1, scaled to length 1 again.

        Raises:
            ConfigurationError: if the vectors of a query cancel each other out.
        """
        queries = len(vectors) - len(self.texts)
        units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        added = units[queries : queries + len(self.plus)].sum(axis=0)
        found = units[:queries] + added - units[queries + len(self.plus) :].sum(axis=0)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        if (lengths < SMALLEST).any():
            raise ConfigurationError(
                f"query {int(lengths.argmin())}, --plus and --minus cancel each other out: their sum has no direction",
                "name other words",
            )
        unit: NDArray[np.float32] = (found / lengths).astype(np.float32)
        return unit

    def left_out(self, query: Query) -> LeftOut:
        """Rows that do not count as answers: the words of the question, as in gensim's `most_similar`, and the row."""
        words = (query, *self.texts) if isinstance(query, str) else self.texts
        texts = frozenset(map(comparable, words)) if self.texts else frozenset()
        return LeftOut(texts, query.ids, query.items) if isinstance(query, RowsQuery) else LeftOut(texts)


def _several(name: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{name} is of type {type(given).__name__}", "name a text, or a list of texts")
    return tuple(given)
