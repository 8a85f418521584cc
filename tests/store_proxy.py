"""An HTTP proxy before a store's server, which gives other answers than the server where a test says so."""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_OWN_HEADERS = {"connection", "transfer-encoding", "content-length", "server", "date"}
ERRORS = {
    400: "ExpiredToken",
    403: "AccessDenied",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    503: "SlowDown",
}


@dataclass
class Fault:
    """What happens to the next requests of a kind.

    Attributes:
        method: of the requests.
        path: is searched in their path and query.
        status: of the answer; 0 for the server's own, cut in the middle; 200 for the server's own, whole.
        times: how many of them.
        after: how many of them pass before.
        forwarded: passes the request on all the same: the server does it, and its answer is lost.
        before: is called before the answer.
        code: of the error; the usual one of its status without it.
        delay_s: seconds to wait before the answer.
    """

    method: str
    path: str
    status: int
    times: int = 1
    after: int = 0
    forwarded: bool = False
    before: Callable[[], object] | None = None
    code: str = ""
    delay_s: float = 0.0


@dataclass
class StoreProxy:
    """A proxy at work; `requests` are those that it met, as (method, path with query).

    Attributes:
        share: of the requests that it answers with 503, which `chance` draws and `drawn` counts.
        refuses: whether it refuses the key of each request, as a store does whose user was deleted.
    """

    address: str
    faults: list[Fault] = field(default_factory=list)
    share: float = 0.0
    chance: random.Random = field(default_factory=random.Random)
    drawn: int = 0
    refuses: Callable[[], bool] = lambda: False
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, path: str) -> int:
        """How many requests there were of a kind."""
        return sum(one == method and re.search(path, other) is not None for one, other in self.requests)

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            if self.refuses():
                return Fault(method, path, 403, code="InvalidAccessKeyId")
            for fault in self.faults:
                if fault.method == method and re.search(fault.path, path) and fault.times:
                    if fault.after:
                        fault.after -= 1
                        return None
                    fault.times -= 1
                    return fault
            if self.share and self.chance.random() < self.share:
                self.drawn += 1
                return Fault(method, path, 503)
        return None


@contextmanager
def proxied(server: str, delay_s: float = 0.0) -> Iterator[StoreProxy]:
    """A proxy on the loopback before a server, by its address.

    Args:
        delay_s: seconds that it waits before each answer, as a distant store does.
    """
    place = urlsplit(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault_of(self.command, self.path)
            time.sleep(delay_s)
            if fault is not None and fault.before is not None:
                fault.before()
            if fault is not None:
                time.sleep(fault.delay_s)
            own = fault is None or fault.status in (0, 200)
            if own or (fault is not None and fault.forwarded):
                # An emulator with one thread serves nobody else while a connection is open.
                with contextlib.closing(http.client.HTTPConnection(place)) as connection:
                    connection.request(self.command, self.path, body, dict(self.headers))
                    found = connection.getresponse()
                    status, headers, content = found.status, found.getheaders(), found.read()
                    length = found.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            if fault is not None and not own:
                text = (
                    f"<Error><Code>{fault.code or ERRORS[fault.status]}</Code><Message>from the test</Message></Error>"
                )
                status, headers, content = fault.status, [("Content-Type", "application/xml")], text.encode()
                length = str(len(content))
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _OWN_HEADERS:
                    self.send_header(name, value)
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if self.command != "HEAD":
                cut = fault is not None and not fault.status
                self.wfile.write(content[: len(content) // 2] if cut else content)
                self.close_connection = self.close_connection or cut

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    listening = Server(("127.0.0.1", 0), Handler)
    proxy = StoreProxy(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
