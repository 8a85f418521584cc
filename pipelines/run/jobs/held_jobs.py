"""What a run holds: the lock of its checkpoint, and jobs on other machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pipelines.run.jobs import left_job
from pipelines.run.jobs.left_job import LeftJob
from pipelines.run.progress import Progress
from schemas.config import Config
from schemas.errors import InterruptedRunError, JobLeftError, LockedError
from schemas.run_report import RemoteJob, Report
from transforms.checkpoint import lock
from transforms.support import stop
from transforms.support.job import Job
from transforms.support.storage import filesystem

ASK_AGAIN_S = 5.0
"""Seconds between two questions for the state of another run's job."""


class HeldJobs:
    """The lock of a run's checkpoint, and its jobs on other machines, which other runs find in the lock.

    Args:
        report: of the run; lists the jobs.
        progress: shows them.
        wait: false if the run ends once it has started a job, or finds one that still runs.

    Attributes:
        left: the completed job of a run that is gone, whose results may be used.
    """

    def __init__(self, config: Config, report: Report, progress: Progress, *, wait: bool) -> None:
        self.config = config
        self.report = report
        self.progress = progress
        self.left: LeftJob | None = None
        self._wait = wait
        self._resumable: LeftJob | None = None
        self._hold: lock.Hold | None = None

    @property
    def root(self) -> str:
        """The folder of this corpus in the checkpoint."""
        return filesystem.join(self.config.checkpoint, self.config.name)

    @property
    def may_leave_jobs(self) -> bool:
        """Whether another run can continue after a job of this one: what it works on can't change meanwhile."""
        return self._hold is not None

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Holds the lock of this checkpoint for the length of a block.

        If a run of the same command is gone and its job on other machines still works, this run waits for the job.

        Raises:
            LockedError: if another run holds it.
            JobLeftError: if such a job still works, and this run does not wait.
            JobEndedError: if a job that nobody waited for has failed.
        """
        with contextlib.ExitStack() as held:
            while self._hold is None:
                try:
                    self._hold = held.enter_context(lock.held(self.root, self.report.run_id))
                except LockedError as error:
                    if error.job is None or command_of(error.run_id) != self.report.command:
                        raise
                    self._await(error.job, error.run_id)
            try:
                if not self.config.runner.is_local:
                    self.left = left_job.finished(self.root)
                yield
                if self.left is not None or self.report.remote_jobs:
                    self.forget_left()
            finally:
                self._hold = None

    @contextlib.contextmanager
    def resumable(self, step: str, of: str, **folders: str) -> Iterator[None]:
        """A block whose job on other machines need not be started again, once it is done.

        Args:
            of: digest of what the step works on; "" if no other run can continue there, so that this one waits, as it
                does where it does not hold the checkpoint.
            folders: with the results of the job; none where what it writes is found anyway.
        """
        if of and self.may_leave_jobs:  # the job is not known yet
            self._resumable = LeftJob(_NO_JOB, self.report.run_id, step, of, folders, on_purpose=not self._wait)
        try:
            yield
        finally:
            self._resumable = None

    def forget_left(self) -> None:
        """To be called before results of jobs are deleted: no later run may take them for complete."""
        if self._hold is not None and not self.config.runner.is_local:
            self.left = None
            left_job.forget(self.root)

    def discard_left(self) -> None:
        """Deletes the results of a job of a run that is gone: what they are about has changed, or is about to."""
        left = self.left
        self.forget_left()
        for folder in left.folders.values() if left is not None else ():
            filesystem.delete_folder(folder)

    def _await(self, job: Job, run_id: str) -> None:
        """Waits until the job of another run has ended; what it did is found again then.

        Raises:
            LockedError: if its state is not known any more.
            JobLeftError: if this run does not wait.
        """
        if not self._wait:
            self.report.jobs.append(str(job))
            self.report.remote_jobs.append(RemoteJob(id=job.id, runner=job.runner, step="attached", left=True))
            raise _left(job, f"still runs for run {run_id}")
        self.progress.note(
            f"attached to {job}, which run {run_id} left behind: waiting for its end. Ctrl-C leaves it running; to end "
            f"it: {job.cancelling}"
        )
        self.progress.step("attached")
        while not (state := job.state()).ended:
            if not state.name:
                raise LockedError(
                    f"{self.root} is held by the {job} of run {run_id}, whose state is not known ({state.reason})",
                    f"run the same command again; or make sure that it has ended: {job.cancelling}",
                )
            stop.sleep(ASK_AGAIN_S)
        self.progress.note(f"{job} has ended ({state.name}); continuing")

    def job_started(self, job: Job) -> None:
        """Shows a job on other machines, and writes it into the lock.

        Raises:
            JobLeftError: if this run does not wait for such a job.
        """
        self.report.jobs.append(str(job))
        step = self.progress.steps[-1] if self.progress.steps else ""
        self.report.remote_jobs.append(RemoteJob(id=job.id, runner=job.runner, step=step))
        self.progress.note(f"started {job}" + (f": {job.console}" if job.console else ""))
        if self._hold is None:
            return
        self._hold.add(job)
        if self._resumable is not None:
            replace(self._resumable, job=job).write(self.root)
            if not self._wait:
                self.report.remote_jobs[-1].left = True
                raise _left(job, "has started")

    def job_seen(self, counters: Mapping[str, int]) -> None:
        """Shows the progress of a job on other machines."""
        self.progress.elsewhere = counters

    def job_ended(self, job: Job, seconds: float, start_seconds: float | None) -> None:
        """Removes a job from the lock, and reports its times."""
        for reported in self.report.remote_jobs:
            if reported.id == job.id:
                reported.seconds, reported.start_seconds = round(seconds, 1), start_seconds
        if self._hold is not None:
            self._hold.remove(job)

    def job_kept(self, job: Job) -> JobLeftError:
        """Leaves a job running, as a person at the terminal said; returns the error that ends this run."""
        self.report.remote_jobs[-1].left = True
        if self._resumable is not None:
            replace(self._resumable, job=job, on_purpose=True).write(self.root)
        return _left(job, "runs on", InterruptedRunError.exit_code)

    def job_left(self, job: Job) -> None:
        """Reports that a cancelled job may still run; it stays in the lock."""
        self.progress.note(
            f"requested the cancellation of {job}; until it has ended, other runs of this checkpoint are refused. To "
            f"make sure: {job.cancelling}"
        )


_NO_JOB = Job("", "")


def _left(job: Job, what: str, exit_code: int = 0) -> JobLeftError:
    error = JobLeftError(
        f"the {job} {what}, and this command does not wait for it",
        "the same command attaches to it, or continues after it; until it has ended, other commands that write are "
        f"refused; to end it: {job.cancelling}",
    )
    error.exit_code = exit_code
    return error


def command_of(run_id: str) -> str:
    """The command of a run.

    >>> command_of("20261126T170000.000000Z-backfill-123")
    'backfill'
    """
    return run_id.partition("-")[2].rpartition("-")[0]
