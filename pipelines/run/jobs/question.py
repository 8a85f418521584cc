"""The question after Ctrl-C at a terminal: is the job on other machines to be cancelled, or to run on?

A pipeline says which job it waits for. The command line (`pipelines.run.terminal.interrupts`) asks, and the pipeline
finds the answer when it stops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from transforms.support import stop

if TYPE_CHECKING:
    from transforms.support.job import Job

is_interactive = False
"""Whether there is a person to ask; the command line sets it."""
_job: Job | None = None
_is_left = False


@contextlib.contextmanager
def about(job: Job, *, may_leave: bool) -> Iterator[None]:
    """A block that waits for a job.

    Args:
        may_leave: whether the job outlives this process.
    """
    global _job, _is_left
    _job, _is_left = (job if may_leave else None), False
    try:
        yield
    finally:
        _job = None


def open_job() -> Job | None:
    """The job that the question after Ctrl-C is about; None if there is none, or a stop is under way."""
    return _job if is_interactive and not stop.requested() else None


def leave() -> None:
    """Takes the answer that the job runs on."""
    global _is_left
    _is_left = True


def answer_is_leave() -> bool:
    """Whether the answer was that the job runs on."""
    return _is_left
