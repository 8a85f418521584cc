"""Chunks whose tokens are the words that an encoder knows, where it has no tokenizer of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from transforms.chunk.base import Chunked
from transforms.chunk.text import TextChunker

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_TOKENS = 32_768
"""Words of a text, for models without a limit of their own."""


def whitespace_tokenizer() -> Tokenizer:
    """Counts at least as many tokens as a text has words: where a long text is cut follows from it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@dataclass(frozen=True)
class CountingChunker:
    """Cuts items as `TextChunker` does, and counts words that the encoder knows, and as dropped those that it doesn't.

    Attributes:
        counts: of each text its known words and its dropped ones.
    """

    whole: TextChunker
    counts: Callable[[Sequence[str]], Sequence[tuple[int, int]]]

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`."""
        chunks, rejects = self.whole.chunk(items)
        counts = self.counts(chunks.column("text").to_pylist())
        for place, name in enumerate(("tokens", "tokens_dropped")):
            at = chunks.column_names.index(name)
            numbers = pa.array([count[place] for count in counts], pa.int64())
            chunks = chunks.set_column(at, chunks.schema.field(name), numbers)
        return Chunked(chunks, rejects)
