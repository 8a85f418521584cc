"""A fake encoder, so that a pipeline runs in milliseconds without a model.

A text's vector is the mean of fixed random vectors, one a word: deterministic, and texts that share words are near.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from schemas.config import Encoder as EncoderConfig
from schemas.identity import Space, digest
from transforms.encoders.base import Encoded, TokenIds

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WORDS = 4096
_MAX_TOKENS = 256
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class FakeModel:
    """The model named `fake`: `encoder.dimensions` numbers a vector (64 without), words as tokens."""

    config: EncoderConfig

    @property
    def space(self) -> Space:
        return Space(
            weights=digest("fake"),
            tokenizer=digest("words"),
            prompt=self.config.prompt or "",
            query_prompt=self.config.query_prompt or "",
            max_tokens=min(self.config.max_tokens or _MAX_TOKENS, _MAX_TOKENS),
            dimensions=self.config.dimensions or 64,
            normalize=self.config.normalize,
        )

    def tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer, models, pre_tokenizers

        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return tokenizer

    def as_seen(self, text: str, *, query: bool = False) -> str:
        return (self.space.query_prompt if query else self.space.prompt) + text

    def load(self, sample: Sequence[str] = ()) -> FakeEncoder:  # noqa: ARG002 (the protocol's)
        return FakeEncoder(self)


@lru_cache(maxsize=4)
def _word_vectors(dimensions: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((_WORDS, dimensions), dtype=np.float32)


@dataclass(frozen=True)
class FakeEncoder:
    """See the module."""

    model: FakeModel

    def encode(
        self,
        texts: Sequence[str],
        *,
        query: bool = False,
        token_ids: Sequence[TokenIds | None] | None = None,  # noqa: ARG002 (words have no ids)
        advance: Callable[[int], None] | None = None,
    ) -> Encoded:
        space = self.model.space
        table = _word_vectors(space.dimensions)
        words = [_WORD.findall(self.model.as_seen(text, query=query)) for text in texts]
        vectors = np.zeros((len(texts), space.dimensions), np.float32)
        for row, kept in enumerate(words):
            rows = [zlib.crc32(word.lower().encode()) % _WORDS for word in kept[: space.max_tokens]]
            vectors[row] = table[rows].mean(axis=0) if rows else 0
        if space.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        total = np.array([len(kept) for kept in words], np.int64)
        tokens = np.minimum(total, space.max_tokens)
        if advance is not None:
            advance(int(tokens.sum()))
        return Encoded(vectors, tokens, total - tokens, 0)

    def runtime(self) -> dict[str, str]:
        return {"engine": "fake", "device": "cpu", "precision": "float32"}
