"""Small objects of a checkpoint that this process has read or written, and listings, while it holds the checkpoint.

Steps of a run read the same snapshot, footers and findings again and again. On a local disk that costs nothing; of an
object store each is a request. While a run holds a checkpoint, no other run writes there, so a copy of
an object stays valid where the object never gets another content (`Rules.fixed`), or where this process wrote it
(`Rules.own`). An object that it has not seen is always looked for in the store: workers write there too.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow as pa

OBJECT_BYTES = 256 << 10
"""Larger objects are not kept: those that are read whole are small, of the others parts are read."""
TOTAL_BYTES = 32 << 20
LISTED_ROWS = 10_000
LISTINGS = 64


class Rules(NamedTuple):
    """Which objects of a checkpoint may be kept, by URI.

    Attributes:
        root: begins the URIs of all that is kept, with a slash at the end.
        fixed: whether an object never gets another content: it is kept once it was read.
        own: whether only this process writes an object, where it does at all: it is kept once it was written.
        listed: whether only this process writes or deletes below a prefix: its listing is kept.
    """

    root: str
    fixed: Callable[[str], bool]
    own: Callable[[str], bool]
    listed: Callable[[str], bool]


class ObjectCache:
    """What is kept of one checkpoint. Threads may use it at once."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, bytes] = OrderedDict()
        self._listings: OrderedDict[str, pa.Table] = OrderedDict()
        self._bytes = 0
        self.changes = 0
        """Counts writes and deletions. What was read during one is not kept: it may be older than that."""

    def content(self, uri: str) -> bytes | None:
        with self._lock:
            if (data := self._objects.get(uri)) is not None:
                self._objects.move_to_end(uri)
            return data

    def listing(self, prefix: str) -> pa.Table | None:
        with self._lock:
            return self._listings.get(prefix)

    def keep_read(self, uri: str, data: bytes, since: int) -> None:
        """Keeps an object that was read; `since` is `changes` from before."""
        with self._lock:
            if since == self.changes and self.rules.fixed(uri):
                self._keep(uri, data)

    def keep_written(self, uri: str, data: bytes) -> None:
        """Keeps an object that was written; call it after `forget`."""
        with self._lock:
            if self.rules.own(uri):
                self._keep(uri, data)

    def keep_listing(self, prefix: str, table: pa.Table, since: int) -> None:
        """Keeps a listing; `since` is `changes` from before."""
        with self._lock:
            if since == self.changes and table.num_rows <= LISTED_ROWS and self.rules.listed(prefix):
                self._listings[prefix] = table
                if len(self._listings) > LISTINGS:
                    self._listings.popitem(last=False)

    def forget(self, uri: str) -> None:
        """Forgets an object that is written or deleted, and the listings that it is in."""
        with self._lock:
            self.changes += 1
            self._bytes -= len(self._objects.pop(uri, b""))
            for prefix in [prefix for prefix in self._listings if uri.startswith(prefix)]:
                del self._listings[prefix]

    def _keep(self, uri: str, data: bytes) -> None:
        if len(data) > OBJECT_BYTES:
            return
        self._bytes += len(data) - len(self._objects.pop(uri, b""))
        self._objects[uri] = data
        while self._bytes > TOTAL_BYTES:
            self._bytes -= len(self._objects.popitem(last=False)[1])


_active: list[ObjectCache] = []


@contextlib.contextmanager
def caching(rules: Rules) -> Iterator[ObjectCache]:
    """Keeps objects below a root for the length of a block, in which no other run writes there."""
    cache = ObjectCache(rules)
    _active.append(cache)
    try:
        yield cache
    finally:
        _active.remove(cache)


def cache_of(uri: str) -> ObjectCache | None:
    """The cache of the checkpoint that a URI is in, if this process holds it."""
    return next((cache for cache in tuple(_active) if uri.startswith(cache.rules.root)), None)
