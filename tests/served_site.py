"""`vecbeam serve` in a process of its own, as a user starts it, or in a thread; and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pipelines.serve import serve
from schemas.config import Config

EXTRA = ("starlette", "uvicorn", "jinja2", "python_multipart", "prometheus_client", "plotly")


class Answered(NamedTuple):
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served(NamedTuple):
    """A running server."""

    address: str
    process: subprocess.Popen[str]

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answered:
        """A GET request, or with a body a POST request; header names have _ for -."""
        return ask(self.address, path, body, **headers)

    def stop(self) -> tuple[int, str]:
        """Ctrl-C; returns the exit code and the last line of standard error."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors.splitlines()[-1]


def ask(address: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
    """A request to a server, see `Served.ask`."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@contextmanager
def served_here(config: Config, **options: Any) -> Iterator[str]:
    """The address of a server in a thread of this process, which ends with the block."""
    addresses: list[str] = []
    answers, ended = threading.Event(), threading.Event()

    def ready(address: str) -> None:
        addresses.append(address)
        answers.set()

    def run() -> None:
        try:
            serve(config, port=0, ready=ready, ended=ended, **options)
        finally:
            answers.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        answers.wait()
        yield addresses[0]
    finally:
        ended.set()
        thread.join()


@contextmanager
def served(config: Path, *options: str, **environment: str) -> Iterator[Served]:
    """A server over a configuration, on a free port, which ends with the block."""
    command = [sys.executable, "-m", "vecbeam", "serve", str(config), "--port", "0", *options]
    # A shell that started this in the background would have SIGINT ignored, here and in the server.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("serving "):
            assert process.stderr is not None
            raise AssertionError(f"the server did not start: {process.stderr.read()}")
        yield Served(line.split()[1], process)
    finally:
        process.kill()
        process.wait()
