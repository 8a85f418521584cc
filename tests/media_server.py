"""A web server on the loopback that serves files, fails, and redirects."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MediaServer:
    """What the server has, and which requests it got.

    Attributes:
        files: by path.
        failures: how often a path is answered with 503 before it is served.
        redirects: where a path leads.
        tags: false to send no ETag.
        heads: false to refuse HEAD.
        requested: (method, path) of all requests.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failures: Counter[str] = Counter()
        self.redirects: dict[str, str] = {}
        self.tags = True
        self.heads = True
        self.requested: list[tuple[str, str]] = []
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def serving() -> Iterator[MediaServer]:
    found = MediaServer()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            found.requested.append((self.command, self.path))
            data = found.files.get(self.path)
            if self.path in found.redirects:
                self.send_response(302)
                self.send_header("Location", found.redirects[self.path])
            elif found.failures[self.path] > 0:
                found.failures[self.path] -= 1
                self.send_response(503)
            elif not with_body and not found.heads:
                self.send_response(405)
            elif data is None:
                self.send_response(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                if found.tags:
                    self.send_header("ETag", f'"{hash(data)}"')
                self.end_headers()
                if with_body:
                    self.wfile.write(data)
                return
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
