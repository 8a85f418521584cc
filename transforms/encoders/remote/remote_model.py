"""The family `remote`: a model on an embedding server, and the space that it defines.

The space has the model's name at the server and canaries, the vectors of some fixed sentences: a model that was changed
under the same name is refused. Chunks are counted in estimated tokens, as the tokenizer is on the server.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.canaries import CANARIES
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.chunk.text import TextChunker
from transforms.encoders.base import Encoded, Work, text_inputs
from transforms.encoders.model_source import ModelSource
from transforms.encoders.remote.embeddings_api import EmbeddingsApi, RefusedInputError
from transforms.encoders.remote.estimated_tokens import estimating_tokenizer
from transforms.support import metrics
from transforms.support.vectors import dense_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TOKENS = 512
BATCH_TOKENS = 8192
DESCRIBE_S = 30.0
"""For which the first request of a process is retried at most: a search must not wait for minutes."""
CANARY_TEXTS = (
    "The harbour was quiet when the last ferry came in.",
    "A matrix is singular if its determinant is zero.",
    "Add two eggs and a cup of flour, and stir until the dough is smooth.",
    "Der Vertrag endet mit Ablauf des Monats.",
)
_CANARY_NUMBERS = 64
"""Of each canary, evenly spaced: a changed model changes all of them, and the space stays small."""


@dataclass(frozen=True)
class RemoteModel:
    """A model on a server.

    Attributes:
        dimensions: of its vectors.
        canaries: see `schemas.canaries`.
        encoding: how the server gives numbers, base64 or float.
    """

    config: EncoderConfig
    dimensions: int
    canaries: list[list[float]]
    encoding: str

    kind: ClassVar = VectorKind.DENSE
    modalities: ClassVar = frozenset({Modality.TEXT})

    @property
    def space(self) -> Space:
        config = self.config
        assert config.server is not None
        return Space(
            {
                "family": "remote",
                "model": config.server.model,
                "revision": config.revision or "",
                "prompt": self.prompt,
                "query_prompt": config.query_prompt or "",
                "max_tokens": self.max_tokens,
                "dimensions": self.dimensions,
                "normalize": config.normalize,
                CANARIES: self.canaries,
            }
        )

    @property
    def max_tokens(self) -> int:
        return self.config.max_tokens or MAX_TOKENS

    @property
    def prompt(self) -> str:
        return self.config.prompt or ""

    @property
    def probe(self) -> pa.Table:
        return text_inputs(CANARY_TEXTS[:1])

    def tokenizer(self) -> Tokenizer:
        return estimating_tokenizer()

    def as_seen(self, text: str, *, query: bool = False) -> str:
        """The text as the server gets it."""
        return ((self.config.query_prompt or "") if query else self.prompt) + text

    def chunker(self, config: Config, modality: Modality) -> TextChunker:  # noqa: ARG002 (it has one)
        return TextChunker(config, self)

    def load(self, sample: Sequence[str] = ()) -> RemoteEncoder:  # noqa: ARG002 (the protocol's)
        return RemoteEncoder(self)


class RemoteEncoder:
    """A server that embeds, with several requests at the same time. Several threads may use it at once."""

    def __init__(self, model: RemoteModel) -> None:
        assert model.config.server is not None
        self._model = model
        self._server = model.config.server
        self._budget = model.config.batch_tokens or BATCH_TOKENS
        self._tokenizer = model.tokenizer()
        self._api = EmbeddingsApi(model.config, model.encoding)

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        """See `Encoder.encode`; tokens are estimates, and the counter `tokens_billed` has those of the server.

        Raises:
            RefusedInputError: if the server refuses a request; the caller tries smaller tables.
            EncoderError: if the server fails, or its vectors have other dimensions than before.
        """
        start = time.perf_counter()
        texts, tokens, dropped = self._cut(
            [self._model.as_seen(text, query=query) for text in inputs.column("text").to_pylist()]
        )
        matrix = np.empty((len(texts), self._model.dimensions), np.float32)
        executor = ThreadPoolExecutor(self._server.concurrency, "remote")
        try:
            waiting = {
                executor.submit(self._request, [texts[row] for row in rows], int(tokens[rows].sum())): rows
                for rows in batches(tokens, self._server.batch_texts, self._budget)
            }
            for done in as_completed(waiting):
                found, counts = done.result()
                matrix[waiting[done]] = found
                for name, number in counts.items():
                    metrics.count(name, number)
                if advance is not None:
                    advance(int(tokens[waiting[done]].sum()))
        finally:
            executor.shutdown(cancel_futures=True)
        if self._model.config.normalize:
            with np.errstate(invalid="ignore"):
                matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
        return Encoded(dense_array(matrix), tokens, dropped, Work(0, time.perf_counter() - start))

    def runtime(self) -> dict[str, str]:
        """See `Encoder.runtime`."""
        return {"engine": "remote", "device": "server", "precision": "server", "server": self._model.config.model}

    def _request(self, texts: list[str], tokens: int) -> tuple[NDArray[np.float32], Counter[str]]:
        """The vectors of some texts, and what was counted: this thread is not one of Beam's."""
        with metrics.set_aside() as counts:
            answer = self._api.embed(texts, tokens)
            metrics.count("remote_requests", 1)
            metrics.count("tokens_billed", tokens if answer.tokens is None else answer.tokens)
        if answer.matrix.shape[1] != self._model.dimensions:
            raise EncoderError(
                f"the embedding server {self._model.config.model} gives vectors of {answer.matrix.shape[1]} dimensions "
                f"now, and gave vectors of {self._model.dimensions} before",
                "check which model the server runs, and run the same command again",
            )
        return answer.matrix, counts

    def _cut(self, texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Texts within the length limit, their tokens and the tokens over the limit, all estimated."""
        limit, cut = self._model.max_tokens, list(texts)
        encodings = self._tokenizer.encode_batch(cut)
        total = np.fromiter(map(len, encodings), np.int64, len(cut))
        for row in np.flatnonzero(total > limit):
            cut[row] = cut[row][: encodings[row].offsets[limit - 1][1]]
        return cut, np.minimum(total, limit), np.maximum(total - limit, 0)


def batches(tokens: NDArray[np.int64], texts: int, budget: int) -> Iterator[NDArray[np.int64]]:
    """Places of texts, int64[n], in requests of at most so many texts and tokens, or of one text.

    >>> [rows.tolist() for rows in batches(np.array([5, 5, 20, 1]), 2, 10)]
    [[0, 1], [2], [3]]
    """
    start, held = 0, 0
    for row, number in enumerate(tokens.tolist()):
        if row > start and (row - start == texts or held + number > budget):
            yield np.arange(start, row)
            start, held = row, 0
        held += number
    if start < len(tokens):
        yield np.arange(start, len(tokens))


def describe(config: EncoderConfig, source: ModelSource) -> RemoteModel:  # noqa: ARG001 (it has no files)
    """Asks the server for the canaries, which show dimensions and encoding.

    Raises:
        ConfigurationError: if the configuration names no server, or the server can't do what it says.
        EncoderError: if the server does not answer, or refuses the key.
    """
    if config.server is None or not config.is_remote:
        raise ConfigurationError(
            f"encoder.family: remote needs the address of a server, and encoder.model is {config.model}",
            "set encoder.model: https://server/v1 and encoder.server: {model: NAME}",
        )
    tokens = sum(map(len, CANARY_TEXTS)) // 4
    retry_s = min(config.server.retry_s, DESCRIBE_S)
    encoding = "base64"
    try:
        answer = EmbeddingsApi(config, encoding, retry_s).embed(CANARY_TEXTS, tokens)
    except RefusedInputError:
        encoding = "float"  # of servers that do not know the other one
        try:
            answer = EmbeddingsApi(config, encoding, retry_s).embed(CANARY_TEXTS, tokens)
        except RefusedInputError as error:
            raise ConfigurationError(
                f"encoder.model: {config.model} does not embed with the model {config.server.model}"
                + (f" and {config.dimensions} dimensions" if config.dimensions else "")
                + f": {error}",
                "check encoder.server.model and encoder.dimensions",
            ) from error
    dimensions = answer.matrix.shape[1]
    if config.dimensions not in (None, dimensions):
        raise ConfigurationError(
            f"encoder.dimensions: {config.dimensions}, but the server gives vectors of {dimensions} dimensions",
            f"set it to {dimensions}, or remove it: this server or model does not shorten vectors",
        )
    if not np.isfinite(answer.matrix).all() or not answer.matrix.any(axis=1).all():
        raise EncoderError(
            f"encoder.model: {config.model} gives NaN or zero vectors for ordinary sentences",
            "check the server's model",
        )
    return RemoteModel(config, dimensions, _canaries(answer.matrix), encoding)


def _canaries(matrix: NDArray[np.float32]) -> list[list[float]]:
    unit: Any = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    taken = np.linspace(0, matrix.shape[1] - 1, min(_CANARY_NUMBERS, matrix.shape[1])).astype(int)
    return [[round(float(number), 5) for number in row] for row in unit[:, taken]]
