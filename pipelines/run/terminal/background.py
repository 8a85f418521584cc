"""What is shown on standard error while a block runs, by a thread of its own."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class Background:
    """Calls `_show` on a thread for the length of a block, if it is wanted; the event `_end` ends it."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def _is_wanted(self) -> bool:
        raise NotImplementedError

    def _show(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self._is_wanted():
            self._thread = threading.Thread(target=self._show, name=type(self).__name__.lower(), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
