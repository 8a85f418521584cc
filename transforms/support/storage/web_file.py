"""Files of web servers that records name, by http and https. What a record says can't make vecbeam reach more.

vecbeam asks only the host of the URI, at an address that is public, or that `corpus.allow_uris` names itself. It
connects to the address that it checked, whatever the name resolves to later. It follows no redirect, uses no proxy of
the environment, and sends no credentials. Time and size are bounded, and transient errors are retried.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache, partial
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from transforms.support.item_error import ItemError
from transforms.support.retry import passes, retrying

TIMEOUT_S = 20.0
"""For a connection, and for each answer of a socket."""
PATIENCE_S = 10.0
"""Seconds of retries of one file."""
MOST_FAILURES = 10
"""Files of one host that fail after all retries, before its others are tried once each."""
BLOCK_BYTES = 1 << 20
_SAFE = "/%:@!$&'()*+,;=~-._?"


class TargetError(ItemError):
    """A file that a record names can't be had, and its item becomes a reject."""


class _AnswerError(Exception):
    """An answer that is not the file; `code` says whether it is transient, see `transforms.support.retry.passes`."""

    def __init__(self, code: int, reason: str, retry_after: str | None) -> None:
        super().__init__(f"the server answers {code} {reason}")
        self.code = code
        self.retry_after = float(retry_after) if retry_after and retry_after.isdigit() else 0.0


def facts(uri: str, below: str) -> list[str | int | float]:
    """What changes if the file does: its ETag, or its time of change and length; [] if the server tells neither.

    Args:
        below: the prefix of `corpus.allow_uris` that allows the URI.

    Raises:
        TargetError: `UriNotAllowed`, `UnreadableMedia` or `EmptyFile`.
    """

    def found() -> list[str | int | float]:
        with closing(_Request(uri, below, "HEAD")) as request:
            answer = request.answer
            if answer.status in (405, 501):
                with closing(_Request(uri, below, "GET", {"Range": "bytes=0-0"})) as other:
                    return other.version()
            return request.version()

    return _tried(uri, found)  # type: ignore[no-any-return]


def download(uri: str, below: str, stream: BinaryIO, most: int) -> None:
    """Writes the whole file to a stream.

    Args:
        below: the prefix of `corpus.allow_uris` that allows the URI.
        most: bytes.

    Raises:
        TargetError: `UriNotAllowed`, `UnreadableMedia`, or `MediaTooLarge` over `most` bytes.
    """

    def copied() -> None:
        stream.seek(0)
        stream.truncate()
        with closing(_Request(uri, below, "GET")) as request:
            request.check()
            size = 0
            while block := request.answer.read(BLOCK_BYTES):
                size += len(block)
                if size > most:
                    raise TargetError("MediaTooLarge", f"{uri} has more than {most >> 20} MiB")
                stream.write(block)
            if request.length is not None and size < request.length:
                raise ConnectionError(f"the server sent {size:,} of {request.length:,} bytes")

    _tried(uri, copied)


class _Request:
    """A request that was sent, and its answer."""

    def __init__(self, uri: str, below: str, method: str, headers: dict[str, str] | None = None) -> None:
        self._uri = uri
        parts = urlsplit(uri)
        host = parts.hostname or ""
        connection: Any
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=_tls())
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
        connection._create_connection = partial(_connected, uri, urlsplit(below).hostname or "")
        path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        self._connection = connection
        try:
            # No compression: the length is that of the file.
            plain = {"Accept-Encoding": "identity", "User-Agent": "vecbeam"}
            connection.request(method, path, headers=plain | (headers or {}))
            self.answer: http.client.HTTPResponse = connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    @property
    def length(self) -> int | None:
        """Bytes of the body, if the server says so."""
        said = self.answer.getheader("Content-Length") or ""
        return int(said) if said.isdigit() else None

    def check(self) -> None:
        """Raises what an answer without the file means."""
        status = self.answer.status
        if 300 <= status < 400:
            where = self.answer.getheader("Location")
            raise TargetError("UriNotAllowed", f"{self._uri} is a redirect to {where}, and redirects are not followed")
        if status not in (200, 206):
            raise _AnswerError(status, self.answer.reason, self.answer.getheader("Retry-After"))

    def version(self) -> list[str | int | float]:
        """See `facts`."""
        self.check()
        said = (self.answer.getheader("Content-Range") or "").rpartition("/")[2]
        size = int(said) if said.isdigit() else self.length
        if size == 0:
            raise TargetError("EmptyFile", f"{self._uri} has no bytes")
        if tag := self.answer.getheader("ETag"):
            return [tag]
        changed = self.answer.getheader("Last-Modified")
        return [*([changed] if changed else []), *([size] if size is not None else [])]


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _connected(uri: str, allowed_host: str, address: tuple[str, int], timeout: float, *_: Any) -> socket.socket:
    """A socket to an address of a host that may be reached."""
    failure: OSError | None = None
    try:
        resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise ConnectionError(f"the name {address[0]} can't be resolved now") from error
        raise TargetError("UnreadableMedia", f"{uri} can't be opened: there is no host {address[0]}") from error
    for family, kind, protocol, _name, where in resolved:
        _check_address(uri, allowed_host, str(where[0]))
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(timeout)
            made.connect(where)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure or ConnectionError(f"{address[0]} has no address")


def _check_address(uri: str, allowed_host: str, address: str) -> None:
    """Refuses an address that is not public, unless the prefix names it, or names this machine."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_global and not found.is_multicast:
        return
    try:
        is_listed = ipaddress.ip_address(allowed_host) == found
    except ValueError:
        is_listed = allowed_host == "localhost" and found.is_loopback
    if not is_listed:
        raise TargetError(
            "UriNotAllowed",
            f"{uri} points to {found}, which is not a public address; corpus.allow_uris must name that address itself",
        )


_failures: Counter[str] = Counter()
_counting = threading.Lock()


def _tried(uri: str, call: Callable[[], Any]) -> Any:
    """Calls a function, and retries while its errors are transient."""
    host = urlsplit(uri).netloc

    def once() -> Any:
        try:
            return call()
        except http.client.HTTPException as error:
            raise ConnectionError(f"the answer broke off: {type(error).__name__}: {error}") from error

    def may_pass(error: BaseException) -> bool:
        return _failures[host] < MOST_FAILURES and passes(error)

    try:
        found = retrying(f"read {uri}", PATIENCE_S, may_pass)(once)
    except (OSError, _AnswerError) as error:
        if passes(error):
            with _counting:
                _failures[host] += 1
        raise TargetError("UnreadableMedia", f"{uri} can't be opened: {error}") from error
    if _failures[host]:
        with _counting:
            _failures[host] = 0
    return found
