"""BM25: Milvus itself makes a row's sparse vector of the words of its text, and scores rows by the words of a query.

No part has these vectors: they depend on the statistics of all rows, which Milvus keeps up to date. The encoder here
counts words, for a corpus that has no other. See `schemas.milvus.full_text`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import Space, VectorKind
from schemas.milvus.full_text import DEFAULT_ANALYZER
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, text_inputs
from transforms.encoders.model_files import lowered
from transforms.encoders.model_source import ModelSource
from transforms.support.vectors import sparse_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_TOKENS = 8192
"""Words of a chunk: Milvus stores at most 65,535 bytes of text per row."""
_PATTERN = r"\w+"
_WORD = re.compile(_PATTERN)
_MEANINGLESS = ("precision", "engine", "device", "dimensions", "normalize", "metric", "index", "prompt", "query_prompt")
"""Keys of an encoder's configuration that change nothing here."""


@dataclass(frozen=True)
class Bm25Model:
    """The words of a row's text, as one of Milvus's analyzers splits it.

    Attributes:
        max_tokens: words of a chunk.
    """

    config: EncoderConfig
    max_tokens: int

    kind: ClassVar = VectorKind.SPARSE
    computed_by_milvus: ClassVar = True
    dimensions: ClassVar = 1 << 32
    modalities: ClassVar = frozenset({Modality.TEXT})
    prompt: ClassVar = ""

    @property
    def space(self) -> Space:
        """What words are: BM25's own numbers belong to the index."""
        return Space({"family": "bm25", "analyzer": self.config.analyzer or DEFAULT_ANALYZER})

    @property
    def probe(self) -> pa.Table:
        return text_inputs(["a word"])

    def tokenizer(self) -> Tokenizer:
        """Counts the words of a text, as Milvus's standard analyzer finds them."""
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PATTERN), "removed", invert=True)
        return tokenizer

    def as_seen(self, text: str, *, query: bool = False) -> str:  # noqa: ARG002 (the protocol's)
        """The text, as Milvus gets it."""
        return text

    def chunker(self, config: Config, modality: Modality) -> TextChunker:  # noqa: ARG002 (it has one)
        return TextChunker(config, self)

    def load(self, sample: Sequence[str] = ()) -> Bm25Encoder:  # noqa: ARG002 (the protocol's)
        return Bm25Encoder()


class Bm25Encoder:
    """Counts words. Its vectors have no number: Milvus makes the real ones."""

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`; a text that has no word is refused, as BM25 could never find it."""
        counts = [len(_WORD.findall(text)) for text in inputs.column("text").to_pylist()]
        words = np.array(counts, np.int64)
        if advance is not None:
            advance(int(words.sum()))
        what = "query" if query else "text"
        reason = f"the {what} has no letter and no digit, and BM25 compares words"
        refused = dict.fromkeys(np.flatnonzero(words == 0).tolist(), ("NoWord", reason))
        return Encoded(sparse_array([((), ())] * len(words)), words, np.zeros_like(words), refused=refused)

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return {"engine": "milvus"}


def describe(config: EncoderConfig, source: ModelSource) -> Bm25Model:  # noqa: ARG001 (it has no files)
    """The model; see `transforms.encoders.families`.

    Raises:
        ConfigurationError: if the configuration sets what BM25 does not have.
    """
    usual = EncoderConfig()
    given = [key for key in _MEANINGLESS if getattr(config, key) != getattr(usual, key)]
    if given:
        raise ConfigurationError(
            f"encoder.{given[0]}: bm25 has none: Milvus makes these vectors of the words of a text",
            f"remove {', '.join(given)}; encoder.analyzer says what words are",
        )
    return Bm25Model(config, lowered(config, "max_tokens", MOST_TOKENS))
