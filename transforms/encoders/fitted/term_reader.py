"""Texts as terms, by scikit-learn's rule: runs of at least two letters or digits in lower case, without stop words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from transforms.encoders.fitted.fitted_files import Learned

RULE = r"1: scikit-learn's CountVectorizer, lowercase, token_pattern (?u)\b\w\w+\b"
"""How a text becomes terms; part of the space. Any other terms for the same text need another number."""
Terms = list[str]


class KnownTerms(NamedTuple):
    """A text as terms.

    Attributes:
        known: those that the model knows, in order.
        dropped: how many it does not know, or are over the limit.
    """

    known: Terms
    dropped: int


@dataclass(frozen=True)
class TermReader:
    """Reads texts as terms.

    Attributes:
        stop_words: english or none.
        ngrams: most words of a term.
        max_tokens: most terms of a text.
        learned: whose terms are known; None for a model that knows all.
    """

    stop_words: str
    ngrams: int
    max_tokens: int
    learned: Learned | None = None

    @cached_property
    def terms(self) -> Callable[[str], Terms]:
        """All terms of a text."""
        from sklearn.feature_extraction.text import CountVectorizer

        stop_words = None if self.stop_words == "none" else self.stop_words
        analyse: Callable[[str], Terms] = CountVectorizer(
            stop_words=stop_words, ngram_range=(1, self.ngrams)
        ).build_analyzer()
        return analyse

    def read(self, texts: Iterable[str]) -> list[KnownTerms]:
        """The terms of each text."""
        places = None if self.learned is None else self.learned.places
        found = []
        for text in texts:
            terms = self.terms(text)
            kept = terms[: self.max_tokens]
            known = kept if places is None else [term for term in kept if term in places]
            found.append(KnownTerms(known, len(terms) - len(known)))
        return found

    def counts(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """Known terms of each text, and dropped ones."""
        return [(len(known), dropped) for known, dropped in self.read(texts)]
