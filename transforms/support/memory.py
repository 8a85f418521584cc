"""Returns unused memory of this process to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from pathlib import Path

import pyarrow as pa

from transforms.support import process

LARGE_BYTES = 256 << 10
SECONDS_BETWEEN = 5.0
"""Between two calls of `give_back_sometimes` that return memory."""
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
# Of version 2 and version 1: limit, what is used, and which part of it are files that can be dropped.
_CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def give_back() -> None:
    """Returns the memory that Arrow's and glibc's allocators keep for later; takes tens of milliseconds.

    Between the steps of a run: memory that one step has released does not help the next one, whose own peak would come
    on top. Without glibc only Arrow's part is returned.
    """
    pa.default_memory_pool().release_unused()
    _glibc("malloc_trim", 0)


_given_back = 0.0


def give_back_sometimes() -> None:
    """Calls `give_back` if `SECONDS_BETWEEN` have passed since the last time; to be called after each batch of a model.

    Decoders and models release blocks of some MiB, and glibc keeps those below 32 MiB in its heaps. Small blocks that
    remain lie between them, the next large ones do not fit there, and the heaps grow with the number of batches.
    """
    global _given_back
    if time.monotonic() - _given_back >= SECONDS_BETWEEN:
        give_back()
        _given_back = time.monotonic()


def give_back_at_once() -> None:
    """Does that; in vecbeam's own process, each block of `LARGE_BYTES` and more then returns as soon as it is freed.

    For a step that needs much for moments at a time, as Milvus Lite does when it merges what it has written: what the
    allocators keep of one such moment comes on top of the next. Each block then costs its page faults. Without glibc
    only Arrow's blocks are handled so, as far as the system's allocator does it.
    """
    gc.collect()  # models and pipelines are in cycles
    give_back()
    if process.is_own():
        pa.set_memory_pool(pa.system_memory_pool())
        _glibc("mallopt", _M_MMAP_THRESHOLD, LARGE_BYTES)


def available() -> int:
    """Bytes that this process could still allocate, by the system's and its container's figures.

    A very large number if neither is known, as outside Linux.
    """
    return min(_of_machine(), _of_container())


def _of_machine() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return sys.maxsize


def _of_container() -> int:
    for folder, most, used, cached in _CONTAINERS:
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / most).read_text())  # "max" is none
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return max(0, limit - int((folder / used).read_text()) + int(statistics.get(cached, 0)))
    return sys.maxsize


def _glibc(function: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
