"""Who holds a checkpoint, by its lock file: whether that has ended, and the errors for a run that must wait."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import psutil

from schemas.errors import LockedError
from transforms.support.job import Job

STALE_S = 60.0
"""Seconds without a renewal after which a lease has expired."""

ended_here: set[str] = set()
"""Ids of runs of this process that ended and could not release their lease: the store refused, or did not answer."""


def check_jobs(holder: dict[str, Any], root: str, uri: str) -> None:
    """Refuses to take over from a run whose jobs may still be at work.

    Raises:
        LockedError: if one runs, or if it is not known whether it does.
    """
    for job in (Job.from_json(values) for values in holder.get("jobs", ())):
        state = job.state()
        if state.ended:
            continue
        run = holder.get("run_id", "?")
        if state.name:
            error = LockedError(
                f"{root} is held by the {job} of run {run}, which is {state.name}",
                f"wait until it has ended; to end it now: {job.cancelling}",
            )
            error.job, error.run_id = job, run
            raise error
        raise LockedError(
            f"{root} is held by the {job} of run {run}, whose state is not known ({state.reason})",
            f"make sure that it has ended ({job.cancelling}), and only then delete {uri}",
        )


def refused(holder: dict[str, Any], root: str) -> LockedError:
    """The error of a run that finds another holder."""
    who = f"run {holder.get('run_id', '?')} (process {holder.get('process', '?')} on {holder.get('host', '?')})"
    if jobs := [Job.from_json(values) for values in holder.get("jobs", ())]:
        who += f" with its {', '.join(map(str, jobs))}"
    return LockedError(
        f"{root} is held by {who} since {holder.get('since', '?')}",
        "wait until it ends; the lock of a killed run expires within a minute",
    )


def is_over(holder: dict[str, Any], age: Callable[[], float]) -> bool:
    """Whether a lease may be taken.

    Args:
        age: seconds since its last renewal, by the clock of the store; needed only if nothing else decides.
    """
    if holder.get("ended") or holder.get("run_id") in ended_here:
        return True
    if holder.get("host") == socket.gethostname():
        try:
            process = psutil.Process(int(holder.get("process", -1)))
            return abs(process.create_time() - float(holder.get("process_started", 0))) > 1
        except (psutil.NoSuchProcess, ValueError):
            return True
    return age() > STALE_S
