"""Work on the rows of a table ahead of their use, on all cores: decoding runs while the model computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


@cache
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 (a fork has no threads of its parent)
    return ThreadPoolExecutor(cores(), thread_name_prefix="decode")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mapped(function: Callable[[T], R], inputs: Iterable[T], window: int) -> Iterator[R]:
    """The results of a function, in order, computed on threads ahead of their use.

    All tables of a process share the threads, one per core. Libraries that decode and scale release Python's lock.

    Args:
        window: most results that wait.

    Raises:
        Exception: what the function raises, at the place of its input.
    """
    waiting: deque[Future[R]] = deque()
    pool = _pool(os.getpid())
    try:
        for value in inputs:
            waiting.append(pool.submit(function, value))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
