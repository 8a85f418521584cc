"""Texts to vectors: tokenized once, sorted by tokens, put through an engine under a token budget.

Vectors are those of `SentenceTransformer.encode`; tokens over the model's limit are counted instead of cut without a
word. Tokenizing takes all cores, and happens outside the engine's lock: where several threads embed tables, one
tokenizes ahead while another one's batches compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.base import Encoded
from transforms.encoders.engines import TokenTable, load_engine

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
        tokens = self._tokenize(sample, model.space.prompt)[0] if sample else None
        self._engine = load_engine(model, tokens)

    def encode(
        self, texts: Sequence[str], *, query: bool = False, advance: Callable[[int], None] | None = None
    ) -> Encoded:
        """See `Encoder.encode`."""
        space = self._model.space
        tokens, dropped = self._tokenize(texts, space.query_prompt if query else space.prompt)
        vectors = np.empty((len(texts), space.dimensions), np.float32)

        def finished(rows: NDArray[np.int64], found: NDArray[np.float32]) -> None:
            vectors[rows] = found[:, : space.dimensions]
            if advance is not None:
                advance(int(tokens.lengths[rows].sum()))

        ran = self._engine.run(tokens, finished)
        if space.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Encoded(vectors, tokens.lengths, dropped, ran.padded, ran.busy_seconds)

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return self._engine.runtime()

    def _tokenize(self, texts: Sequence[str], prompt: str) -> tuple[TokenTable, NDArray[np.int64]]:
        limit = self._model.space.max_tokens
        whole = [prompt + text for text in texts]
        if self._model.lower:
            whole = [text.lower() for text in whole]
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(whole)]
        dropped = np.zeros(len(whole), np.int64)
        for row, tokens in enumerate(ids):
            if len(tokens) > limit:
                ids[row] = self._cutting.encode(whole[row]).ids
                dropped[row] = len(tokens) - len(ids[row])
        left_out = self._prompt_tokens(prompt) if prompt and "without prompt" in self._model.space.pooling else 0
        return TokenTable.of(ids, limit, self._model.padding_id, left_out), dropped

    def _prompt_tokens(self, prompt: str) -> int:
        # As the library counts it: the closing special token does not belong to the prompt.
        encoding = self._tokenizer.encode(prompt)
        return len(encoding.ids) - (1 if encoding.special_tokens_mask[-1] else 0)
