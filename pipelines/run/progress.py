"""Progress on standard error: a line that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from rich.live import Live
from rich.text import Text

from pipelines.run.terminal import output
from pipelines.run.terminal.background import Background
from schemas.modality import Modality, shown_rate
from transforms.support.metrics import TALLY

TERMINAL_EVERY_S = 0.2
PLAIN_EVERY_S = 10.0


class Progress(Background):
    """Shows the current step, items done, tokens/s and time left, until it is closed.

    Args:
        quiet: shows nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__()
        self._console = output.console(2)
        self._quiet = quiet
        self.steps: list[str] = []
        """Steps that were begun, in order."""
        self.modality = Modality.TEXT
        """Of the corpus, whose unit rates are in."""
        self._step = ""
        self._total = 0
        self._counter = "items_done"
        self._next: tuple[int, str] | None = None
        self._began = time.monotonic()
        self._at_start: dict[str, int] = {}
        self.elsewhere: Mapping[str, int] = {}
        """Counters of the step's job on other machines, as its runner last reported them."""

    def step(self, name: str, *, total: int = 0, counter: str = "items_done") -> None:
        """Begins a step; `counter` counts up to `total`, if that is known."""
        self._step, self._total, self._counter, self._next = name, total, counter, None
        self.steps.append(name)
        self._began = time.monotonic()
        self._at_start = TALLY.snapshot()
        self.elsewhere = {}
        if not self._quiet and not self._console.is_terminal:
            self._line()

    def then(self, *, total: int, counter: str) -> None:
        """Says what the step counts next, from the moment that this has begun."""
        self._next = total, counter

    def note(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            output.notice(text)

    def _is_wanted(self) -> bool:
        return not self._quiet

    def _show(self) -> None:
        # A terminal that was closed does not end the run.
        with contextlib.suppress(OSError, ValueError):
            if self._console.is_terminal:
                line = Live(
                    console=self._console,
                    refresh_per_second=1 / TERMINAL_EVERY_S,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                with output.drawing(self._console), line as live:
                    while not self._end.wait(TERMINAL_EVERY_S):
                        live.update(Text(output.clean_line(self.describe()), overflow="ellipsis", no_wrap=True))
            else:
                while not self._end.wait(PLAIN_EVERY_S):
                    self._line()

    def _line(self) -> None:
        if self._step:
            output.notice(self.describe())

    def describe(self) -> str:
        """The state of the step as one line."""
        seconds = max(time.monotonic() - self._began, 1e-6)
        now, elsewhere = TALLY.snapshot(), self.elsewhere
        # Workers of this process count here too, and so both must not be added.
        now |= {name: max(now.get(name, 0), self._at_start.get(name, 0) + count) for name, count in elsewhere.items()}
        goes_on = self._next is not None and now.get(self._next[1], 0) > self._at_start.get(self._next[1], 0)
        if goes_on and self._next is not None:
            (self._total, self._counter), self._next, self._began = self._next, None, time.monotonic()
        done = now.get(self._counter, 0) - self._at_start.get(self._counter, 0)
        rejected = 0
        if self._counter == "items_done":
            rejected = now.get("items_rejected", 0) - self._at_start.get("items_rejected", 0)
            done += rejected + now.get("items_ahead", 0)
        parts = [self._step]
        if self._total:
            parts.append(f"{done:,} of {self._total:,}")
        elif done:
            parts.append(f"{done:,}")
        tokens = now.get("tokens_ahead", 0) - self._at_start.get("tokens_ahead", 0)
        if tokens:
            padded = now.get("tokens_padded", 0) - self._at_start.get("tokens_padded", 0)
            rate = f"{shown_rate(tokens / self.modality.per_unit / seconds)} {self.modality.unit}/s"
            parts.append(rate + (f", {padded / (tokens + padded):.0%} padding" if padded else ""))
        if self._total and rejected < done < self._total and not goes_on:
            parts.append(f"{duration((self._total - done) * seconds / (done - rejected))} left")
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours if there are any.

    >>> duration(75), duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
