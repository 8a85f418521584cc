"""Waiting for a job on other machines, which Ctrl-C ends: the job is cancelled then, or left to run on."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from pipelines.run.jobs import question
from pipelines.run.jobs.job_watch import JobWatch, counters_of, wall_times
from pipelines.run.jobs.left_job import why_bound
from schemas.config import Config
from schemas.errors import InterruptedRunError, JobEndedError, JobLeftError, VecbeamError
from transforms.support import stop
from transforms.support.job import ENDED, Job

log = logging.getLogger("vecbeam")
POLL_S = 0.5
CANCEL_S = 1.5
"""Seconds to wait for the answer to a cancellation: Ctrl-C ends a command within five."""


class Jobs(Protocol):
    """Receives the jobs that a run starts on other machines."""

    @property
    def may_leave_jobs(self) -> bool:
        """Whether a job may run on without this process."""
        ...

    def job_started(self, job: Job) -> None: ...

    def job_seen(self, counters: Mapping[str, int]) -> None:
        """Receives the counters of a running job."""
        ...

    def job_ended(self, job: Job, seconds: float, start_seconds: float | None) -> None:
        """Receives a job that has ended: its wall time, and the time until its first worker counted something."""
        ...

    def job_kept(self, job: Job) -> JobLeftError:
        """Receives a job that runs on after this run; returns the error that ends the run."""
        ...

    def job_left(self, job: Job) -> None:
        """Receives a cancelled job that may still run."""
        ...


def wait_for(config: Config, result: Any, job: Job, jobs: Jobs | None) -> Counter[str]:
    """Waits for a job in a way that Ctrl-C ends, and cancels the job then; returns its counters.

    Times among them are wall time, not sums over workers.

    Args:
        jobs: receives the job, and what becomes of it.

    Raises:
        JobEndedError: if somebody ended the job elsewhere.
        JobLeftError: if the job runs on.
        InterruptedRunError: if a person stops this process; the job is cancelled.
    """
    failure: list[BaseException] = []

    def wait() -> None:
        try:
            result.wait_until_finish()
        except BaseException as error:
            failure.append(error)

    waiting = threading.Thread(target=wait, name="job", daemon=True)
    watch = JobWatch(result, lambda counters: jobs.job_seen(counters) if jobs is not None else None)
    try:
        # From the moment that a person sees the job's id, Ctrl-C is about it.
        with question.about(job, may_leave=jobs is not None and jobs.may_leave_jobs and not why_bound(config)):
            if jobs is not None:
                jobs.job_started(job)
            with watch:
                waiting.start()
                while waiting.is_alive():
                    waiting.join(POLL_S)
                    if waiting.is_alive():
                        stop.check()
        if failure:
            _check_own_end(result, job, failure[0])
            raise failure[0]
        seconds = watch.seconds
        counters = counters_of(result)
    except JobLeftError:
        raise
    except BaseException as error:
        if jobs is not None and isinstance(error, InterruptedRunError) and question.answer_is_leave():
            raise jobs.job_kept(job) from error
        _cancel(result)
        ended = _has_ended(result)
        if jobs is not None:
            with contextlib.suppress(VecbeamError, OSError):  # the error that ended the run counts
                jobs.job_ended(job, watch.seconds, watch.start_seconds) if ended else jobs.job_left(job)
        raise
    if jobs is not None:
        jobs.job_ended(job, seconds, watch.start_seconds)
    return wall_times(counters, seconds)


def _check_own_end(result: Any, job: Job, failure: BaseException) -> None:
    """Names who ended a job, if it was not the job itself.

    Raises:
        JobEndedError: if the job was cancelled, drained or replaced elsewhere.
    """
    state = _state(result)
    if state in ENDED - {"DONE", "FAILED"}:
        where = f"in its console ({job.console})" if job.console else "with the tools of its runner"
        raise JobEndedError(
            f"the {job} is {state}: somebody ended it {where}, not this command",
            "nothing that it wrote is lost; run the same command again to continue",
        ) from failure


def _cancel(result: Any) -> None:
    """Requests the cancellation of a job that has not ended; waits for the answer, not for the job's end."""
    if _has_ended(result):
        return

    def cancel() -> None:
        try:
            result.cancel()
        except Exception as error:
            log.warning("the job could not be cancelled: %s", error)

    asking = threading.Thread(target=cancel, name="cancel", daemon=True)
    asking.start()
    asking.join(CANCEL_S)


def _has_ended(result: Any) -> bool:
    """Whether the runner says, within a moment, that a job has ended."""
    return _state(result) in ENDED


def _state(result: Any) -> str:
    """The state of a job, "" if the runner does not tell it within a moment."""
    found: list[str] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            found.append(str(result.state))

    asking = threading.Thread(target=ask, name="state", daemon=True)
    asking.start()
    asking.join(CANCEL_S / 3)
    return found[0] if found else ""
