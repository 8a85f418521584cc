"""Texts to vectors: tokenized once, sorted by tokens, put through an engine under a token budget.

Vectors are those of `SentenceTransformer.encode`; tokens over the model's limit are counted instead of cut without a
word. Tokenizing takes all cores, and happens outside the engine's lock: where several threads embed tables, one
tokenizes ahead while another one's batches compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.base import Encoded, TokenIds
from transforms.encoders.engines import TokenTable, load_engine
from transforms.encoders.engines.matrix_rate import matrix_rate
from transforms.encoders.engines.operations import Operations

if TYPE_CHECKING:
    from transforms.encoders.sentence_transformers import SentenceTransformersModel


class TextEncoder:
    """A text model, loaded on an engine. Several threads may use it at once.

    Args:
        sample: texts that int8 takes its ranges from; nothing else needs them.

    Raises:
        EncoderError: where the model can't be loaded, or a GPU is asked for and there is none.
    """

    def __init__(self, model: SentenceTransformersModel, sample: Sequence[str] = ()) -> None:
        self._model = model
        self._tokenizer = model.tokenizer()
        self._cutting = model.tokenizer()
        self._cutting.enable_truncation(model.space.max_tokens)
        tokens = self._tokenize(sample)[0] if sample else None
        self._engine = load_engine(model, tokens)
        self._operations = Operations.of(Path(model.transformer_folder))
        runtime = self._engine.runtime()
        self._rate = matrix_rate(runtime["device"], runtime["precision"]) * int(runtime.get("devices", "1"))

    def encode(
        self,
        texts: Sequence[str],
        *,
        query: bool = False,
        token_ids: Sequence[TokenIds | None] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> Encoded:
        """See `Encoder.encode`."""
        start = time.perf_counter()
        space = self._model.space
        tokens, dropped = self._tokenize(texts, query, token_ids)
        vectors = np.empty((len(texts), space.dimensions), np.float32)

        def finished(rows: NDArray[np.int64], found: NDArray[np.float32]) -> None:
            vectors[rows] = found[:, : space.dimensions]
            if advance is not None:
                advance(int(tokens.lengths[rows].sum()))

        ran = self._engine.run(tokens, finished)
        if space.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Encoded(
            vectors,
            tokens.lengths,
            dropped,
            ran.padded,
            ran.busy_seconds,
            self._operations.total(tokens.lengths),
            self._rate * (time.perf_counter() - start),
        )

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._engine.runtime()

    def _tokenize(
        self, texts: Sequence[str], query: bool = False, known: Sequence[TokenIds | None] | None = None
    ) -> tuple[TokenTable, NDArray[np.int64]]:
        space = self._model.space
        ids: list[TokenIds | None] = [None] * len(texts) if known is None else list(known)
        dropped = np.zeros(len(texts), np.int64)
        unknown = [row for row, tokens in enumerate(ids) if tokens is None]
        seen = [self._model.as_seen(texts[row], query=query) for row in unknown]
        for row, text, encoding in zip(unknown, seen, self._tokenizer.encode_batch_fast(seen), strict=True):
            tokens = encoding.ids
            if len(tokens) > space.max_tokens:
                tokens = self._cutting.encode(text).ids
                dropped[row] = len(encoding) - len(tokens)
            ids[row] = np.array(tokens, np.int32)
        rows = [tokens for tokens in ids if tokens is not None]
        prompt = space.query_prompt if query else space.prompt
        left_out = self._prompt_tokens(prompt) if prompt and "without prompt" in space.pooling else 0
        return TokenTable.of(rows, space.max_tokens, self._model.padding_id, left_out), dropped

    def _prompt_tokens(self, prompt: str) -> int:
        # As the library counts it: the closing special token does not belong to the prompt.
        encoding = self._tokenizer.encode(prompt)
        return len(encoding.ids) - (1 if encoding.special_tokens_mask[-1] else 0)
