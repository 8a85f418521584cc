"""Texts to vectors: tokenized once, sorted by tokens, put through an engine under a token budget.

Vectors are those of `SentenceTransformer.encode`; tokens over the model's limit are counted and not cut silently.
Tokenizing uses all cores, outside the engine's lock: if several threads embed tables, one tokenizes ahead while another
one's batches compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.chunk.text import Tokenizing
from transforms.encoders.base import Encoded, TokenIds, Work, token_ids_of
from transforms.encoders.engines import Engine, TokenTable, load_engine
from transforms.encoders.engines.transformer_files import TransformerFiles
from transforms.encoders.text_facts import TextFacts
from transforms.support.vectors import dense_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Load = Callable[[TransformerFiles, TokenTable | None], Engine]


class TextModel(Tokenizing, Protocol):
    """A text model before it is loaded."""

    def tokenizer(self) -> Tokenizer:
        """See `Tokenizing`; its ids are what the model gets."""
        ...

    @property
    def facts(self) -> TextFacts: ...


class TextEncoder:
    """A text model, loaded on an engine. Several threads may use it at once.

    Args:
        sample: texts from which int8 determines its ranges; nothing else needs them.
        load: gives the engine, from files and the tokens of the sample.

    Raises:
        EncoderError: if the model can't be loaded, or a GPU is configured and there is none.
    """

    def __init__(
        self, model: TextModel, files: TransformerFiles, sample: Sequence[str] = (), load: Load = load_engine
    ) -> None:
        self._model = model
        self._facts = model.facts
        self._padding_id = files.padding_id
        self._tokenizer = model.tokenizer()
        tokens = self._tokenize(sample)[0] if sample else None
        self._engine = load(files, tokens)

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`."""
        texts = inputs.column("text").to_pylist()
        tokens, dropped = self._tokenize(texts, query, token_ids_of(inputs))
        vectors = np.empty((len(texts), self._facts.dimensions), np.float32)

        def finished(rows: NDArray[np.int64], found: NDArray[np.float32]) -> None:
            vectors[rows] = found[:, : self._facts.dimensions]
            if advance is not None:
                advance(int(tokens.lengths[rows].sum()))

        ran = self._engine.run(tokens, finished)
        if self._facts.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Encoded(dense_array(vectors), tokens.lengths, dropped, Work(ran.padded, ran.busy_seconds))

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._engine.runtime()

    @cached_property
    def _cutting_tokenizer(self) -> Any:
        # A second one, loaded only for a text that is too long: loading takes as long as embedding a query.
        tokenizer = self._model.tokenizer()
        tokenizer.enable_truncation(self._facts.max_tokens)
        return tokenizer

    def _tokenize(
        self, texts: Sequence[str], query: bool = False, known: Sequence[TokenIds | None] | None = None
    ) -> tuple[TokenTable, NDArray[np.int64]]:
        facts = self._facts
        ids: list[TokenIds | None] = [None] * len(texts) if known is None else list(known)
        dropped = np.zeros(len(texts), np.int64)
        unknown = [row for row, tokens in enumerate(ids) if tokens is None]
        seen = [self._model.as_seen(texts[row], query=query) for row in unknown]
        long: list[int] = []
        for place, encoding in enumerate(self._tokenizer.encode_batch_fast(seen)):
            row, dropped_tokens = unknown[place], len(encoding) - facts.max_tokens
            if dropped_tokens > 0:
                long.append(place)
                dropped[row] = dropped_tokens
            else:
                ids[row] = np.array(encoding.ids, np.int32)
        if long:  # all at once, as the tokenizer then uses all cores
            cut = self._cutting_tokenizer.encode_batch_fast([seen[place] for place in long])
            for place, encoding in zip(long, cut, strict=True):
                ids[unknown[place]] = np.array(encoding.ids, np.int32)
        rows = [tokens for tokens in ids if tokens is not None]
        prompt = facts.query_prompt if query else facts.prompt
        left_out = self._prompt_tokens(prompt) if prompt and "without prompt" in facts.pooling else 0
        return TokenTable.of(rows, facts.max_tokens, self._padding_id, left_out), dropped

    def _prompt_tokens(self, prompt: str) -> int:
        # As the library counts it: the closing special token does not belong to the prompt.
        encoding = self._tokenizer.encode(prompt)
        return len(encoding.ids) - (1 if encoding.special_tokens_mask[-1] else 0)
