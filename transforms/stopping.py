"""Ctrl-C, passed on to the pipeline: the batch at hand is finished, the next one is not begun."""

from __future__ import annotations

import threading

from schemas.errors import InterruptedRunError

_STOP = threading.Event()


def request_stop() -> None:
    """Asks the pipeline of this process to stop after the batch at hand."""
    _STOP.set()


def reset() -> None:
    """Forgets an earlier request."""
    _STOP.clear()


def check() -> None:
    """To be called before each batch.

    Raises:
        InterruptedRunError: where a stop was asked for.
    """
    if _STOP.is_set():
        raise InterruptedRunError(
            "stopped after the batch at hand", "run the same command to continue where it stopped"
        )
