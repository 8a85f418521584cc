"""Ctrl-C, passed on to the pipeline: current work ends at its next safe point, and no new work begins."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from schemas.errors import InterruptedRunError

_STOP = threading.Event()
_COUNT = threading.Lock()
_deferring = 0
_announced = False
_exit_code = InterruptedRunError.exit_code
_said = ("stopped before it was complete", "run the same command again")

last_words: Callable[[], object] | None = None
"""Writes the report of the current run; called if a run does not stop and must be ended from outside."""


def request_stop(exit_code: int = InterruptedRunError.exit_code) -> None:
    """Requests that the work of this process stops at its next safe point, and ends its waits."""
    announce(exit_code)
    _STOP.set()


def announce(exit_code: int) -> None:
    """Requests the same from the handler of a signal, and ends no wait: `request_stop` follows from another thread.

    The thread that a handler interrupts may hold the lock of the event, for which the handler would wait forever.
    """
    global _exit_code, _announced
    _exit_code, _announced = exit_code, True


def requested() -> bool:
    """Whether a stop was requested."""
    return _announced


def reset() -> None:
    """Forgets an earlier request."""
    global _announced
    _announced = False
    _STOP.clear()


def interruption() -> InterruptedRunError:
    """The error of a stopped command, with the exit code of the signal."""
    error = InterruptedRunError(*_said)
    error.exit_code = _exit_code
    return error


@contextlib.contextmanager
def saying(message: str, remedy: str = "") -> Iterator[None]:
    """Inside this block a stop has another message: a server has nothing to complete, and some commands resume."""
    global _said
    before, _said = _said, (message, remedy)
    try:
        yield
    finally:
        _said = before


def check() -> None:
    """To be called at safe points: before each batch, between groups of tokens, between calls to Milvus.

    Raises:
        InterruptedRunError: if a stop was requested.
    """
    if _announced:
        raise interruption()


def sleep(seconds: float) -> None:
    """Waits, until a stop is requested at the latest.

    Raises:
        InterruptedRunError: if a stop was requested.
    """
    _STOP.wait(seconds)
    check()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A block that its own threads end by `check`: the main thread is not interrupted inside it."""
    global _deferring
    with _COUNT:
        _deferring += 1
    try:
        yield
    finally:
        with _COUNT:
            _deferring -= 1


def is_deferred() -> bool:
    """Whether the process is in such a block."""
    return _deferring > 0
