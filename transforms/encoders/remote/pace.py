"""Limits of requests and tokens per minute, for the threads of one process."""

from __future__ import annotations

import threading
import time

from transforms.support import stop


class Pace:
    """Spreads requests evenly, so that any minute keeps both limits.

    Args:
        requests, tokens: most per minute; None for no limit.
    """

    def __init__(self, requests: float | None = None, tokens: float | None = None) -> None:
        self._requests = requests
        self._tokens = tokens
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Waits for the turn of a request.

        Args:
            tokens: that it has.

        Raises:
            InterruptedRunError: if a stop was requested.
        """
        seconds = max(
            60 / self._requests if self._requests else 0.0, 60 * tokens / self._tokens if self._tokens else 0.0
        )
        if not seconds:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + seconds
        if turn > now:
            stop.sleep(turn - now)
