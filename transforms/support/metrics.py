"""Counts everything: Beam metrics on any runner, and a tally of this process for live progress."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transforms.support.amounts import weights_of

if TYPE_CHECKING:
    import pyarrow as pa

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
OUTSIDE = Tally()
"""What this process counted outside pipelines, which no runner reports: calls of the launcher, for example."""


_THREAD = threading.local()


@contextmanager
def set_aside() -> Iterator[Counter[str]]:
    """Yields a counter for this thread: Beam loses the counts of threads that it did not start."""
    _THREAD.aside = Counter()
    try:
        yield _THREAD.aside
    finally:
        _THREAD.aside = None


@contextmanager
def in_pipeline() -> Iterator[Counter[str]]:
    """Yields the counters of a pipeline that runs on this thread without a runner of Beam."""
    _THREAD.pipeline = Counter()
    try:
        yield _THREAD.pipeline
    finally:
        _THREAD.pipeline = None


def count(name: str, value: int) -> None:
    """Adds to a counter."""
    aside: Counter[str] | None = getattr(_THREAD, "aside", None)
    pipeline: Counter[str] | None = getattr(_THREAD, "pipeline", None)
    if aside is not None:
        aside[name] += value
    elif value:
        if pipeline is not None:
            pipeline[name] += value
        elif _is_in_pipeline():
            from apache_beam.metrics import Metrics

            Metrics.counter(NAMESPACE, name).inc(value)
        else:
            OUTSIDE.add(name, value)
        TALLY.add(name, value)


def _is_in_pipeline() -> bool:
    """Whether a runner of Beam counts what this thread does."""
    # Without Beam in this process there is no pipeline, and a search must not load Beam.
    if "apache_beam" not in sys.modules:
        return False
    from apache_beam.metrics.execution import MetricsEnvironment

    return MetricsEnvironment.current_container() is not None


@contextmanager
def ahead(chunks: pa.Table) -> Iterator[Callable[[int], None]]:
    """Shows a batch's items as they go through the encoder, before its part is written and they count as done.

    Yields a function to call with the amount that has gone through. Kept in the tally `items_ahead` alone,
    and taken back at the end of the block.
    """
    total = max(1, int(weights_of(chunks).sum()))
    items = len(set(chunks.column("item_id").to_pylist()))
    through = shown = 0

    def advance(more: int) -> None:
        nonlocal through, shown
        through += more
        now = min(items, items * through // total)
        TALLY.add("items_ahead", now - shown)
        TALLY.add("tokens_ahead", more)
        shown = now

    try:
        yield advance
    finally:
        TALLY.add("items_ahead", -shown)


class _StepClock:
    """The wall time of a step in this process, however many threads are in it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._counted_to = 0

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._counted_to = time.perf_counter_ns()
            self._inside += 1

    def leave(self) -> int:
        """Nanoseconds since the first of the threads entered, or since another left: what no other has counted."""
        with self._lock:
            now = time.perf_counter_ns()
            spent, self._counted_to = now - self._counted_to, now
            self._inside -= 1
            return spent


_CLOCKS: dict[str, _StepClock] = {}


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Adds the wall time of the block to the counter `<step>_us` (microseconds).

    Where several threads of a process are in the same step at once, the time counts once.
    """
    clock = _CLOCKS.setdefault(step, _StepClock())
    clock.enter()
    try:
        yield
    finally:
        count(f"{step}_us", clock.leave() // 1000)
