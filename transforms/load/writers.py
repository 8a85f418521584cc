"""Bounds how many parts a job writes to Milvus at the same time, whatever the number of its workers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import apache_beam as beam

from schemas.config import Collection
from transforms.support import stop
from transforms.support.versioned_dofn import VersionedDoFn

STOP_CHECK_S = 0.5
_LOCK = threading.Lock()
_SLOTS: dict[tuple[str, int], threading.BoundedSemaphore] = {}


@dataclass(eq=False)
class DealToWriters(beam.PTransform):  # type: ignore[misc]
    """PCollection of elements -> PCollection of (writer, its elements), at most `writers` of them.

    A runner processes the elements of one key one after the other, and never two groups of one key at once: so a
    runner with a hundred workers has at most `writers` that write. Only these elements are shuffled, which are names
    or positions of parts; a writer reads the rows itself.

    Attributes:
        writers: most groups.
        name: of an element, for where a bundle starts to deal.
    """

    writers: int
    name: Callable[[Any], str] = str

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        return elements | "Deal" >> beam.ParDo(_Deal(self.writers, self.name)) | "ByWriter" >> beam.GroupByKey()


class _Deal(VersionedDoFn):
    """Deals in turn: a hash alone gives some of eight writers twice the parts of others."""

    def __init__(self, writers: int, name: Callable[[Any], str]) -> None:
        self._writers, self._name = writers, name
        self._next: int | None = None

    def start_bundle(self) -> None:
        self._next = None

    def process(self, element: Any) -> Iterator[tuple[int, Any]]:
        # Where a bundle starts follows from its first element, so that many small bundles don't all start at writer 0.
        at = crc32(self._name(element).encode()) if self._next is None else self._next
        self._next = at + 1
        yield at % self._writers, element


@contextlib.contextmanager
def writing(config: Collection) -> Iterator[None]:
    """Holds one of the writers that this process may have at once, of all threads that write to one Milvus."""
    with _LOCK:
        key = (config.uri, config.most_writers)
        slots = _SLOTS.setdefault(key, threading.BoundedSemaphore(config.most_writers))
    while not slots.acquire(timeout=STOP_CHECK_S):
        stop.check()
    try:
        yield
    finally:
        slots.release()
