"""One helper counts everything: Beam metrics on any runner, and a tally of this process for live progress."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from apache_beam.metrics import Metrics

NAMESPACE = "vecbeam"


class Tally:
    """Counters of this process; safe to read from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, value: int) -> None:
        with self._lock:
            self._counts[name] += value

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def reset(self) -> None:
        with self._lock:
            self._counts.clear()


TALLY = Tally()


def count(name: str, value: int) -> None:
    """Adds to a counter."""
    if value:
        Metrics.counter(NAMESPACE, name).inc(value)
        TALLY.add(name, value)


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Adds the wall time of the block to the counter `<step>_us` (microseconds)."""
    start = time.perf_counter_ns()
    try:
        yield
    finally:
        count(f"{step}_us", (time.perf_counter_ns() - start) // 1000)
