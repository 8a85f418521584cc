"""Calls to Milvus: limits each attempt in time, retries and counts transient errors, rewords all others."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from schemas.config import Collection
from schemas.errors import CollectionError, VecbeamError
from transforms.milvus.throttling import is_in_vain, is_throttling
from transforms.support import metrics
from transforms.support.retry import retrying

log = logging.getLogger("vecbeam")

LONG_S = 86400.0
"""Seconds that flushing, building and loading may take in one call; pings detect a dead connection earlier."""

# A server that is being stopped cancels the calls that it is answering; vecbeam cancels none.
_PASSING_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED")
_PASSING = re.compile(
    r"being flushed|service not ready|service unavailable|not healthy|is initializing|standby|recovering"
    r"|no available|channel not available|channel not found|shard leaders?|node not (found|match|available)"
    r"|node offline|connection (reset|refused)|broken pipe|socket closed|stream removed|rst_stream|goaway"
    r"|fail connecting to server|context deadline exceeded|wait for (flush|loading collection) timeout"
    # Lite reports this for concurrent writers, although it kept the rows.
    r"|current_seq is monotonic",
    re.IGNORECASE,
)
_FOR_GOOD = re.compile(
    r"message larger than max|larger than max \(|unauthenticated|auth check failure|missing authorization"
    r"|permission denied|permissiondenied|unimplemented",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"unauthenticated|auth check failure|missing authorization", re.IGNORECASE)
_GONE = re.compile(
    r"fail connecting to server|unavailable|connection (reset|refused)|socket closed|broken pipe|deadline",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"closed channel|channel (is )?closed|create connection first|NoneType", re.IGNORECASE)
"""What pymilvus and gRPC report for a closed client."""
_PREFIX = re.compile(r"^(\[\w+\] Retry (timeout: [^,]*|run out of \d+ retry times), (message=)?)+")


class MessageTooLargeError(CollectionError):
    """A message is over the server's limit."""


class OneAttempt(float):
    """A time-out in seconds with which pymilvus gives up at its first error instead of retrying.

    Given a time-out, pymilvus repeats a failed call, uncounted, until `elapsed >= timeout`. Compared so, this one has
    always elapsed; as a number it is an ordinary deadline for gRPC.
    """

    def __le__(self, other: object) -> bool:
        return True


def call(settings: Collection, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a method of a MilvusClient.

    One attempt takes at most `timeout_s` of the configuration (or the `timeout` given here, in seconds). Errors that
    may pass (no connection, a deadline, rate limits and quotas, a server that recovers) are retried with backoff and
    jitter for `retry_s`; each further attempt adds one to the counter `retries`, and each answer that asks to slow
    down one to `throttled`.

    Raises:
        CollectionError: for everything that didn't pass, with the uri and a remedy.
    """
    limit = OneAttempt(kwargs.pop("timeout", settings.timeout_s))
    what = getattr(function, "__name__", "call")
    if args and isinstance(args[0], str):
        what = f"{what} {args[0]}"
    return again(settings, what, lambda: function(*args, timeout=limit, **kwargs))


def again(settings: Collection, what: str, function: Callable[[], Any], seconds: float | None = None) -> Any:
    """Runs a function of several calls until it succeeds, as `call` does; the function must be repeatable."""
    try:
        with _unlogged():
            seconds = settings.retry_s if seconds is None else seconds
            return retrying(f"Milvus {what}", seconds, _counted, words)(function)
    except VecbeamError:
        raise
    except Exception as error:
        raise translate(error, settings, what) from error


class _OurCalls(logging.Filter):
    """Keeps pymilvus' messages about vecbeam's calls out of the log: it logs each error, then raises it.

    vecbeam raises the same error in a line, and some are expected, such as a missing alias. Calls of the host program
    are logged as before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        return not getattr(self.of_thread, "calls", 0)


_OUR_CALLS = _OurCalls()


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    logging.getLogger("pymilvus.decorators").addFilter(_OUR_CALLS)  # added once, however often this runs
    _OUR_CALLS.of_thread.calls = getattr(_OUR_CALLS.of_thread, "calls", 0) + 1
    try:
        yield
    finally:
        _OUR_CALLS.of_thread.calls -= 1


def _counted(error: BaseException) -> bool:
    if throttles(error):
        metrics.count("throttled", 1)
    return passes(error)


def throttles(error: BaseException) -> bool:
    """Whether Milvus asks to slow down: rate limit, quota, memory high-water mark, full queue."""
    if isinstance(error, VecbeamError):
        return False
    text = words(error)
    if _FOR_GOOD.search(text) or is_in_vain(text):
        return False
    code, old_code = (_number(error, name) for name in ("code", "compatible_code"))
    return is_throttling(code, old_code, text) or _status(error) == "RESOURCE_EXHAUSTED"


def _number(error: BaseException, name: str) -> int:
    found = getattr(error, name, 0)
    return int(found) if isinstance(found, int) else 0


def passes(error: BaseException) -> bool:
    """Whether an error of pymilvus or gRPC is transient."""
    if isinstance(error, VecbeamError):
        return False
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    text = words(error)
    if _FOR_GOOD.search(text) or is_in_vain(text):
        return False
    return throttles(error) or _status(error) in _PASSING_CODES or bool(_PASSING.search(text))


def connection_gone(error: CollectionError) -> bool:
    """Whether a call failed because its client has lost Milvus, so that another client may reach it."""
    cause = error.__cause__
    return cause is not None and (passes(cause) or bool(_CLOSED.search(words(cause))))


def collection_gone(error: CollectionError) -> bool:
    """Whether a call failed because there is no collection of that name."""
    return error.__cause__ is not None and not_found(error.__cause__)


def not_found(error: BaseException) -> bool:
    """Whether an error of pymilvus says that there is no such collection or alias."""
    text = words(error).lower()
    return code_of(error) == 100 or "can't find collection" in text or "not exist" in text or "not found" in text


def code_of(error: BaseException) -> int | str:
    """The number of a MilvusException (0 if it has none), or the name of a gRPC status."""
    code = getattr(error, "code", None)
    return _status(error) or (int(code) if isinstance(code, int) else 0)


def words(error: BaseException) -> str:
    """Text of an error and its causes, without tracebacks, pymilvus' own retry prefix or the token."""
    said: list[str] = []
    for link in _chain(error):
        status, details = _status(link), getattr(link, "details", None)
        message = getattr(link, "message", None)
        if message:
            said.append(_PREFIX.sub("", str(message)))
        elif callable(details):
            said.append(f"{status} {details()}")
        else:
            said.append(str(link))
    text = " ".join("; ".join(dict.fromkeys(part for part in said if part)).split())
    token = os.environ.get("MILVUS_TOKEN")
    return text.replace(token, "***") if token else text


def translate(error: BaseException, settings: Collection, what: str) -> CollectionError:
    """An error of pymilvus or gRPC as one that names the place and the remedy."""
    text = words(error)
    where = f"Milvus at {settings.uri}"
    if _REFUSED.search(text):
        return CollectionError(
            f"{where} refuses the token ({text})",
            "put a valid one into the environment: MILVUS_TOKEN=user:password, or an API key",
        )
    if re.search(r"permission ?denied", text, re.IGNORECASE):
        return CollectionError(
            f"{where} does not permit {what}: {text}", "grant that privilege to the user of MILVUS_TOKEN"
        )
    if re.search(r"database not (found|exist)", text, re.IGNORECASE):
        return CollectionError(
            f"{where} has no database {settings.database!r} ({text})",
            "create it, or correct collection.database in the configuration",
        )
    if re.search(r"larger than max", text, re.IGNORECASE):
        return MessageTooLargeError(
            f"{where} refuses a message as too large ({text})",
            f"lower collection.message_bytes (now {settings.message_bytes})",
        )
    if is_in_vain(text):
        return CollectionError(
            f"{where} takes no writes: {what} failed: {text}",
            "free some of its disk or raise the quota, have the database opened again, then run the same command "
            "again; what was loaded so far is kept",
        )
    if throttles(error):
        return CollectionError(
            f"{where} still asks to slow down after {settings.retry_s:g} s: {what} failed: {text}",
            f"lower collection.writers (now {settings.most_writers}) or raise collection.retry_s, then run the same "
            "command again; what was loaded so far is kept",
        )
    if _status(error) in _PASSING_CODES or _GONE.search(text):
        return CollectionError(
            f"{where} does not answer: {what} failed ({text})",
            f"check that the server runs and can be reached from here{_past_proxy()}, then run the same command again; "
            "what was loaded so far is kept",
        )
    return CollectionError(f"{where}: {what} failed: {text}")


def _past_proxy() -> str:
    """A hint at a proxy that gRPC uses: the most common reason why only vecbeam can't reach a server."""
    taken = next((name for name in ("grpc_proxy", "https_proxy", "http_proxy") if os.environ.get(name)), "")
    return f" (gRPC takes the proxy of {taken}; a host that is not behind it belongs into no_proxy)" if taken else ""


def _status(error: BaseException) -> str:
    code = getattr(error, "code", None)
    if callable(code) and not isinstance(code, type):
        code = code()
    return str(getattr(code, "name", "")) if not isinstance(code, int) else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__
