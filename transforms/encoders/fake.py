"""A fake encoder, so that a pipeline runs in milliseconds without a model.

A text's vector is the mean of fixed random vectors, one per word: deterministic, and texts that share words are near.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.config import Config, EncoderConfig
from schemas.identity import digest
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded
from transforms.encoders.counted_words import whitespace_tokenizer
from transforms.encoders.model_source import ModelSource
from transforms.encoders.text_facts import FactedText, TextFacts
from transforms.support.vectors import dense_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WORDS = 4096
_MAX_TOKENS = 256
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class FakeModel(FactedText):
    """The model named `fake`: vectors of `encoder.dimensions` numbers (64 by default), words as tokens."""

    config: EncoderConfig

    def tokenizer(self) -> Tokenizer:
        return whitespace_tokenizer()

    def chunker(self, config: Config, modality: Modality) -> TextChunker:  # noqa: ARG002 (it has one)
        return TextChunker(config, self)

    def load(self, sample: Sequence[str] = ()) -> FakeEncoder:  # noqa: ARG002 (the protocol's)
        return FakeEncoder(self)


@lru_cache(maxsize=4)
def _word_vectors(dimensions: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((_WORDS, dimensions), dtype=np.float32)


@dataclass(frozen=True)
class FakeEncoder:
    """See the module."""

    model: FakeModel

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        facts, texts = self.model.facts, inputs.column("text").to_pylist()
        table = _word_vectors(facts.dimensions)
        words = [_WORD.findall(self.model.as_seen(text, query=query)) for text in texts]
        vectors = np.zeros((len(texts), facts.dimensions), np.float32)
        for row, kept in enumerate(words):
            rows = [zlib.crc32(word.lower().encode()) % _WORDS for word in kept[: facts.max_tokens]]
            vectors[row] = table[rows].mean(axis=0) if rows else 0
        if facts.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        total = np.array([len(kept) for kept in words], np.int64)
        tokens = np.minimum(total, facts.max_tokens)
        if advance is not None:
            advance(int(tokens.sum()))
        return Encoded(dense_array(vectors), tokens, total - tokens)

    def runtime(self) -> dict[str, str]:
        return {"engine": "fake", "device": "cpu", "precision": "float32"}


def describe(config: EncoderConfig, source: ModelSource) -> FakeModel:  # noqa: ARG001 (it has no files)
    """The model; see `transforms.encoders.families`."""
    facts = TextFacts(
        weights=digest("fake"),
        tokenizer=digest("words"),
        prompt=config.prompt or "",
        query_prompt=config.query_prompt or "",
        max_tokens=min(config.max_tokens or _MAX_TOKENS, _MAX_TOKENS),
        dimensions=config.dimensions or 64,
        normalize=config.normalize,
    )
    return FakeModel(facts, config)
