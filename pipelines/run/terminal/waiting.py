"""A line on a terminal while a command that has no steps computes, so that nobody takes it for dead."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

from pipelines.run.terminal import output

AFTER_S = 2.0
EVERY_S = 1.0


class Waiting:
    """Shows the name of a command and its time, from `AFTER_S` on, until the block ends.

    Only where standard error is a terminal: a log needs no line each second.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Waiting:
        if output.is_terminal(2):
            self._thread = threading.Thread(target=self._show, name="waiting", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _show(self) -> None:
        begun = time.monotonic()
        if self._end.wait(AFTER_S):
            return
        from rich.live import Live
        from rich.text import Text

        from pipelines.run.progress import duration

        console = output.console(2)
        line = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        with contextlib.suppress(OSError, ValueError), output.drawing(console), line as live:
            while True:
                live.update(Text(f"{self._name}  {duration(time.monotonic() - begun)}"), refresh=True)
                if self._end.wait(EVERY_S):
                    return
