"""What the pages of a server share: the configuration, an open search, and what was computed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.search.searcher import Searcher
from schemas.config import Config
from transforms.explore.live_rows import LiveRows

T = TypeVar("T")
MOST_KEPT = 16
SECONDS = 60.0
"""How long what was computed from the checkpoint is shown before it is computed again."""


@dataclass
class Site:
    """A served collection, and another one to compare it with.

    Attributes:
        config: whose alias is searched.
        other: another configuration, for the page that compares; None without one.
    """

    config: Config
    other: Config | None = None
    searcher: Searcher = field(init=False)
    other_searcher: Searcher | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.searcher = Searcher(self.config, release=True)
        if self.other is not None:
            self.other_searcher = Searcher(self.other, release=True)
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        self._locks: dict[Hashable, threading.Lock] = {}
        self._changing = threading.Lock()

    def once(self, key: Hashable, compute: Callable[[], T], seconds: float = SECONDS) -> T:
        """What `compute` returned at most `seconds` ago; of several requests one computes it."""
        with self._changing:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            known = self._kept.get(key)
            if known is not None and time.monotonic() - known[0] < seconds:
                return known[1]  # type: ignore[no-any-return]
            value = compute()
            while len(self._kept) >= MOST_KEPT:  # a request chooses keys: they must not fill the memory
                self._locks.pop(oldest := next(iter(self._kept)), None)
                self._kept.pop(oldest, None)
            self._kept[key] = (time.monotonic(), value)
            return value

    def rows(self) -> LiveRows:
        """The rows that the served collection holds, from the checkpoint: a newer snapshot may not be published.

        Raises:
            CheckpointError: if the checkpoint does not have them, or there is none.
            CollectionError: if nothing is served, or Milvus does not answer.
        """
        return self.once("rows", lambda: current_rows(self.config, served=True))

    def close(self) -> None:
        """Frees models and connections."""
        self.searcher.close()
        if self.other_searcher is not None:
            self.other_searcher.close()
