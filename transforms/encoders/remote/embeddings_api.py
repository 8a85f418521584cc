"""The protocol POST /v1/embeddings: a request, its retries, and the checks of its answer.

Protocol: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.config.encoder import KEY_VARIABLE, EmbeddingServer, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders.remote.pace import Pace
from transforms.support import stop
from transforms.support.retry import retrying

MOST_BYTES = 1 << 30
"""Of an answer."""
CONNECT_S = 10.0
_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_OF_INPUT = frozenset({400, 413, 422})
_SHOWN = 300
_MOST_INVALID = 3


class RefusedInputError(Exception):
    """The server refuses the texts of a request (400, 413, 422): smaller requests may pass."""


class TransientError(Exception):
    """A request failed and may pass later.

    Attributes:
        retry_after: seconds that the server tells vecbeam to wait; None if it does not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidAnswerError(TransientError):
    """An answer that does not keep to the protocol. It may be billed, so vecbeam sends the request again only twice."""


class Answer(NamedTuple):
    """The answer to one request.

    Attributes:
        matrix: float32[n, dimensions], in the order of the texts.
        tokens: that the server counted; None if it does not say.
    """

    matrix: NDArray[np.float32]
    tokens: int | None


class EmbeddingsApi:
    """A server. Several threads may use it at once.

    Args:
        config: with an address and a server.
        encoding: float or base64, as the server gives numbers.
        retry_s: instead of the server's.

    Raises:
        ConfigurationError: if the configured key variable is not set, or holds something that is not a key.
    """

    def __init__(self, config: EncoderConfig, encoding: str = "base64", retry_s: float | None = None) -> None:
        import requests

        assert config.server is not None
        self.encoding = encoding
        self._config = config
        self._server: EmbeddingServer = config.server
        self._address = config.model.rstrip("/").removesuffix("/embeddings") + "/embeddings"
        self._retry_s = self._server.retry_s if retry_s is None else retry_s
        self._key = _key(self._server)
        self._pace = Pace(self._server.requests_per_minute, self._server.tokens_per_minute)
        self._session = requests.Session()
        # Else the library would send a password of ~/.netrc in place of the key.
        self._session.auth = self._authorize
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=self._server.concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def embed(self, texts: Sequence[str], tokens: int) -> Answer:
        """The vectors of some texts.

        Args:
            tokens: estimate, for the limit of tokens per minute.

        Raises:
            RefusedInputError: if the server refuses the texts.
            EncoderError: if it refuses the key or the model, does not answer in time, or gives no valid answers.
            InterruptedRunError: if a stop was requested.
        """
        invalid = 0

        def passes(error: BaseException) -> bool:
            nonlocal invalid
            invalid += isinstance(error, InvalidAnswerError)
            return isinstance(error, TransientError) and invalid < _MOST_INVALID

        caller = retrying(f"a request to {self._address}", self._retry_s, passes)
        try:
            answer: Answer = caller(self._attempt, list(texts), tokens)
        except TransientError as error:
            raise EncoderError(
                f"the embedding server {self._address} fails: {error}",
                "check the server, and run the same command again: it resumes; encoder.server.retry_s is how long "
                "vecbeam retries",
            ) from error
        return answer

    def _attempt(self, texts: list[str], tokens: int) -> Answer:
        self._pace.wait(tokens)
        stop.check()
        body: dict[str, Any] = {"model": self._server.model, "input": texts, "encoding_format": self.encoding}
        if self._config.dimensions is not None:
            body["dimensions"] = self._config.dimensions
        status, headers, data = self._post(body)
        if status == 200:
            return read_answer(data, len(texts))
        said = self._said(data)
        if status in _TRANSIENT:
            raise TransientError(f"status {status}{said}", _seconds(headers.get("Retry-After")))
        if status in _OF_INPUT:
            raise RefusedInputError(f"the embedding server refuses the text: status {status}{said}")
        raise self._refused(status, said, headers.get("Location", ""))

    def _post(self, body: dict[str, Any]) -> tuple[int, Any, bytes]:
        import requests

        limit = self._server.timeout_s
        end = time.monotonic() + limit
        try:
            with self._session.post(
                self._address,
                json=body,
                timeout=(min(CONNECT_S, limit), limit),
                allow_redirects=False,
                stream=True,
            ) as response:
                pieces, size = [], 0
                for piece in response.iter_content(1 << 20):
                    pieces.append(piece)
                    size += len(piece)
                    # The library's limit is for each read: a server that sends a byte a second would never end.
                    if time.monotonic() > end:
                        raise TransientError(f"the answer took more than {limit:g} s")
                    if size > MOST_BYTES:
                        raise EncoderError(
                            f"the embedding server {self._address} sends an answer of more than {MOST_BYTES >> 20} MiB",
                            "lower encoder.server.batch_texts",
                        )
                return response.status_code, response.headers, b"".join(pieces)
        except requests.exceptions.Timeout:
            raise TransientError(f"no answer in {limit:g} s") from None
        except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
            raise EncoderError(
                f"can't connect to {self._address}: {_cause(error)}", "check the address and its certificate"
            ) from None
        except requests.exceptions.RequestException as error:  # refused, reset, or half an answer
            raise TransientError(f"the connection failed: {_cause(error)}") from None

    def _authorize(self, request: Any) -> Any:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _said(self, data: bytes) -> str:
        """What the server says about an error, without the key, which some servers repeat."""
        text = data[:4096].decode(errors="replace")
        try:
            found = json.loads(data)
            error = found.get("error", found.get("message", found.get("detail", text)))
            text = error.get("message", text) if isinstance(error, dict) else str(error)
        except (ValueError, AttributeError):
            pass
        if self._key:
            text = text.replace(self._key, "***")
        text = " ".join(str(text).split())
        return f": {text[:_SHOWN]}" if text else ""

    def _refused(self, status: int, said: str, location: str) -> EncoderError:
        where, variable = f"the embedding server {self._address}", self._server.key_variable
        if status in (401, 403):
            state = "is not set" if not self._key else "is not valid there"
            return EncoderError(
                f"{where} refuses access: status {status}{said}",
                f"put a valid key into the environment variable {variable}, which {state}, of each worker",
            )
        if status == 404:
            return EncoderError(
                f"{where} has no such address or model: status {status}{said}",
                f"check encoder.model (most end in /v1) and encoder.server.model: {self._server.model}",
            )
        if 300 <= status < 400:
            return EncoderError(
                f"{where} redirects to {location.partition('?')[0] or 'another address'}; vecbeam follows no redirect, "
                "so that the key stays with the server",
                "set encoder.model to the address of the server itself",
            )
        return EncoderError(f"{where} answers with status {status}{said}", "check the server and its address")


def _key(server: EmbeddingServer) -> str:
    key = os.environ.get(server.key_variable, "").strip()
    if not key and server.key_variable != KEY_VARIABLE:
        raise ConfigurationError(
            f"encoder.server.key_variable: the environment variable {server.key_variable} is not set",
            f"export {server.key_variable}, or remove the key for a server without a key",
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            f"the environment variable {server.key_variable} has characters that a key can't have",
            "export the key alone, in one line",
        )
    return key


def read_answer(data: bytes, texts: int) -> Answer:
    """The vectors of an answer, put into the order of the texts by their `index`.

    Numbers that are null or NaN stay NaN: the text is at fault, and becomes a reject.

    Args:
        texts: how many were sent.

    Raises:
        InvalidAnswerError: if the answer is not valid.
    """
    try:
        answer = json.loads(data)
        entries = answer["data"]
        order = [int(entry.get("index", at)) for at, entry in enumerate(entries)]
        vectors = [_vector(entry["embedding"]) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidAnswerError(f"the answer is not valid: {type(error).__name__}: {error}") from None
    if len(vectors) != texts or sorted(order) != list(range(texts)):
        raise InvalidAnswerError(f"the answer has {len(vectors)} vectors (index {order[:5]}...) for {texts} texts")
    lengths = sorted({len(vector) for vector in vectors})
    if len(lengths) > 1 or not lengths[0]:
        raise InvalidAnswerError(f"the answer has vectors of {' and '.join(map(str, lengths))} dimensions")
    matrix = np.empty((texts, lengths[0]), np.float32)
    matrix[order] = vectors
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens", usage.get("total_tokens")) if isinstance(usage, dict) else None
    return Answer(matrix, int(tokens) if isinstance(tokens, (int, float)) else None)


def _vector(numbers: Any) -> NDArray[np.float32]:
    """One vector, from a list of numbers or from base64 of float32, little-endian."""
    if isinstance(numbers, str):
        return np.frombuffer(base64.b64decode(numbers, validate=True), "<f4")
    vector = np.asarray(numbers, np.float32)
    if vector.ndim != 1:
        raise ValueError(f"a vector is an array of {vector.ndim} dimensions")
    return vector


def _seconds(retry_after: str | None) -> float | None:
    """The header Retry-After, seconds or a date, in seconds from now."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _cause(error: BaseException) -> str:
    """The kind of an error of the network: its text has the address of an object in memory."""
    cause: Any = error
    while getattr(cause, "reason", None) or (cause.args and isinstance(cause.args[0], BaseException)):
        inner = getattr(cause, "reason", None)
        cause = inner if isinstance(inner, BaseException) else cause.args[0] if cause.args else None
        if not isinstance(cause, BaseException):
            break
    return type(cause if isinstance(cause, BaseException) else error).__name__
