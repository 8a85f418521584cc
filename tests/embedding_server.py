"""A server of POST /v1/embeddings on 127.0.0.1 that really embeds, with faults that a test switches on."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from transforms.encoders import resolve, text_inputs

KEY = "sk-test-0123456789"


class EmbeddingServer:
    """What the server does and did.

    Attributes:
        model: an encoder of vecbeam; its vectors are those that the server gives.
        faults: of the next requests, one each: a status, or a name of `_broken`.
        every: a fault of each request.
        requests: bodies, in the order of their arrival.
        keys: the header Authorization of each.
        poison: text that the server refuses with 422.
    """

    def __init__(self, model: str, **encoder: Any) -> None:
        self.encoder = resolve(EncoderConfig(model=model, **encoder)).load()
        self.faults: deque[int | str] = deque()
        self.every: int | str | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: dict[str, str] = {}
        self.poison = "\0"
        self.wants_key = False
        self.noise = 0.0
        self.turned = False
        self.knows_base64 = True
        self.uri = ""
        self._random = np.random.default_rng(0)

    def vectors(self, texts: list[str], dimensions: int | None = None) -> NDArray[np.float32]:
        """float32[n, dimensions]"""
        matrix = self.encoder.encode(text_inputs(texts)).matrix[:, :dimensions].copy()
        if self.turned:  # another model under the same name
            matrix = np.roll(matrix, 7, axis=1)
        if self.noise:
            matrix += self.noise * self._random.standard_normal(matrix.shape).astype(np.float32)
        return matrix

    def answer(self, body: dict[str, Any], key: str | None) -> tuple[int, bytes]:
        self.requests.append(body)
        self.keys.append(key)
        if self.wants_key and key != f"Bearer {KEY}":
            return 401, json.dumps({"error": {"message": f"invalid key {key}"}}).encode()
        fault = self.faults.popleft() if self.faults else self.every
        if isinstance(fault, int):
            return fault, json.dumps({"error": {"message": "the fault that was ordered"}}).encode()
        texts = body["input"]
        if any(self.poison in text for text in texts):
            return 422, json.dumps({"error": "a text that this server refuses"}).encode()
        if body["encoding_format"] == "base64" and not self.knows_base64:
            return 400, b'{"detail": "encoding_format is not known"}'
        return 200, _broken(self._whole(body, texts), fault)

    def _whole(self, body: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        def number(vector: NDArray[np.float32]) -> Any:
            if body["encoding_format"] == "base64":
                return base64.b64encode(vector.astype("<f4").tobytes()).decode()
            return vector.tolist()

        vectors = self.vectors(texts, body.get("dimensions"))
        data = [{"index": at, "embedding": number(vector)} for at, vector in enumerate(vectors)]
        return {"data": data, "model": body["model"], "usage": {"prompt_tokens": sum(map(len, texts))}}


def _broken(answer: dict[str, Any], fault: str | None) -> bytes:
    data = answer["data"]
    match fault:
        case "permuted":
            data.reverse()
        case "fewer":
            data.pop()
        case "double index":
            data[-1]["index"] = 0
        case "other dimension":
            for entry in data:
                entry["embedding"] = [0.5] * 5
        case "nan":
            data[0]["embedding"] = [None, *[0.5] * (len(data[0]["embedding"]) - 1)]
        case "no json":
            return b"<html>an error page</html>"
        case "half" | "never":
            pass
    if fault == "half":
        return b"half " + json.dumps(answer).encode()
    if fault == "never":
        return b"never"
    return json.dumps(answer).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state: EmbeddingServer = self.server.state
        assert self.path == "/v1/embeddings", self.path
        status, data = state.answer(body, self.headers.get("Authorization"))
        if data == b"never":
            time.sleep(1.5)
            self.close_connection = True
            return
        half = data.startswith(b"half ")
        data = data.removeprefix(b"half ")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status != 200:
            for name, value in state.headers.items():
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.close_connection = half

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(state: EmbeddingServer) -> Iterator[EmbeddingServer]:
    """Serves on a free port of 127.0.0.1 until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.state = state  # type: ignore[attr-defined]
    state.uri = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
