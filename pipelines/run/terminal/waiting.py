"""A line on a terminal while a command that has no steps computes, so that a user sees that it is at work."""

from __future__ import annotations

import contextlib
import time

from pipelines.run.terminal import output
from pipelines.run.terminal.background import Background

AFTER_S = 2.0
EVERY_S = 1.0


class Waiting(Background):
    """Shows the name of a command and its time, from `AFTER_S` on, until the block ends.

    Only where standard error is a terminal: a log needs no line each second.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def _is_wanted(self) -> bool:
        return output.is_terminal(2)

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
