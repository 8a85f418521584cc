"""What every run has: an id, a report, progress, and a recorded end."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata

from pipelines.run import left_job
from pipelines.run.left_job import LeftJob
from pipelines.run.progress import Progress
from schemas.config import Config
from schemas.errors import (
    CheckpointError,
    ConfigurationError,
    InterruptedRunError,
    JobLeftError,
    LockedError,
    VecbeamError,
)
from schemas.modality import Modality
from schemas.rejects import shortened
from schemas.run_amounts import Rates
from schemas.run_report import CHANGING, FORMAT_VERSION, Failure, RemoteJob, Report, Served
from transforms.checkpoint import lock
from transforms.milvus.alias import served_now
from transforms.support import metrics, process, stop
from transforms.support.job import Job
from transforms.support.storage import filesystem

_PACKAGES = (
    "vecbeam",
    "apache-beam",
    "milvus-lite",
    "numpy",
    "openvino",
    "pyarrow",
    "pymilvus",
    "semantic-text-splitter",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)

ASK_AGAIN_S = 5.0
"""Seconds between two questions for the state of another run's job."""
LONGEST_MESSAGE = 1000
"""Characters of the message of another program's error."""


class Session:
    """A run of one command over one configuration.

    Args:
        wait: false if the run ends once it has started a job on other machines, or finds one that still runs.

    Attributes:
        report: filled during the run, written at its end.
        progress: shows the current step.
        left: the completed job of a run that is gone, whose results may be used.
    """

    def __init__(self, command: str, config: Config, progress: Progress, *, wait: bool = True) -> None:
        self.config = config
        self._wait = wait
        self._resumable: LeftJob | None = None
        self.left: LeftJob | None = None
        self.progress = progress
        # With microseconds: runs are listed in the order of their names, and two may begin within a second.
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{command}-{os.getpid()}"
        self.report = Report(
            format_version=FORMAT_VERSION, run_id=self.run_id, command=command, name=config.name, alias=config.name
        )
        self.report.could_change = command in CHANGING
        self.report.modality = progress.modality = config.corpus.modality
        self.report.model = config.model_names
        self.report.versions = {"python": sys.version.split()[0], **_versions()}
        self._counters: Counter[str] = Counter()
        self._outside = metrics.OUTSIDE.snapshot()
        self._hold: lock.Hold | None = None
        self._began = process.run_began()
        self._phases = defaultdict[str, float](float, startup=self.seconds_so_far())

    @property
    def root(self) -> str:
        """The folder of this corpus in the checkpoint."""
        return filesystem.join(self.config.checkpoint, self.config.name)

    @property
    def may_leave_jobs(self) -> bool:
        """Whether another run can continue after a job of this one: what it works on can't change meanwhile."""
        return self._hold is not None

    def uri(self, name: str) -> str:
        """A file of this run."""
        return filesystem.join(self.root, "runs", self.run_id, name)

    def seconds_so_far(self) -> float:
        """Since the run began; see `transforms.support.process.run_began`."""
        return time.time() - self._began

    def moved(self, before: str | None, after: str) -> None:
        """Records that the run moved the alias, and what it pointed to before."""
        self.report.served = Served(collection=after, before=before or "", moved=True)

    def add_counters(self, counters: Counter[str]) -> None:
        """Adds the counters of a pipeline to the report."""
        self._counters.update(counters)

    def add_seconds(self, step: str, seconds: float) -> None:
        """Adds wall time that this process spent on a step."""
        self._phases[step] += seconds

    def counter(self, name: str) -> int:
        return self._counters[name]

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
                    self._hold = held.enter_context(lock.held(self.root, self.run_id))
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
            self._resumable = LeftJob(_NO_JOB, self.run_id, step, of, folders, on_purpose=not self._wait)
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

    def check_books(self) -> None:
        """Raises VecbeamError where the run's own numbers do not add up: then its result can't be trusted."""
        if problems := self.report.balance():
            raise VecbeamError(
                f"the books of this run do not balance: {'; '.join(problems)}",
                "this is a fault of vecbeam: please report it with the run's report.json; vecbeam verify tells whether "
                "the collection is right",
            )

    def finish(self, error: Exception | None = None) -> Report:
        """Completes the report and writes it; a run that was refused before its start leaves nothing behind."""
        report = self.report
        report.seconds.total = round(self.seconds_so_far(), 3)
        for step in ("survey", "read", "chunk", "embed", "checkpoint", "load", "index", "verify"):
            spent = self._phases[step] + self._counters[f"{step}_us"] / 1e6
            setattr(report.seconds, step, round(spent, 3))
        report.seconds.startup = round(self._phases["startup"] + self._counters["model_load_us"] / 1e6, 3)
        report.rates = self._rates()
        outside = metrics.OUTSIDE.snapshot()
        for name in ("retries", "throttled"):
            setattr(report, name, self._counters[name] + outside.get(name, 0) - self._outside.get(name, 0))
        report.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        report.steps = list(dict.fromkeys(self.progress.steps))
        if report.served is None:
            report.served = served_now(self.config, error)
        if error is not None:
            report.error = _failure(error)
            report.exit_code = error.exit_code if isinstance(error, VecbeamError) else 1
        if not isinstance(error, (ConfigurationError, LockedError)):
            data = json.dumps(report.as_json(), indent=2).encode()
            try:
                filesystem.write_atomic(self.uri("report.json"), data)
            except CheckpointError as unwritten:
                if error is None:
                    raise
                report.warnings.append(f"no report was written: {unwritten.message}")
        return report

    def _rates(self) -> Rates:
        spent, tokens = self.report.seconds, self.report.tokens
        shares = spent.model_dump(exclude={"total"})
        return Rates(
            tokens_per_second=round(tokens.embedded / spent.embed, 1) if spent.embed else 0.0,
            per_second=round(self._amount() / spent.embed, 1) if spent.embed else 0.0,
            padding_share=round(tokens.padded / max(1, tokens.embedded + tokens.padded), 4),
            encoder_busy_share=round(min(1.0, self._counters["encoder_busy_us"] / 1e6 / max(spent.embed, 1e-6)), 4),
            step_shares={step: round(value / spent.total, 4) for step, value in shares.items() if value},
        )

    def _amount(self) -> float:
        """What was embedded, in the unit of the corpus."""
        report = self.report
        if report.sound is not None:
            return report.sound.embedded
        is_rows = report.modality is Modality.IMAGE or report.modality.has_rows_of_several
        return report.chunks.embedded if is_rows else report.tokens.embedded


@contextlib.contextmanager
def running(command: str, config: Config, progress: Progress | None, *, wait: bool = True) -> Iterator[Session]:
    """A run of a command: its report is complete after the block, whichever way that ends.

    Args:
        wait: false if the run ends, without an error, once it has started a job on other machines.

    Raises:
        ConfigurationError: if it should not wait, and jobs end with this process.
        VecbeamError: what the block raised, with the report.
    """
    if not wait:
        left_job.check_outlives(config)
    with progress or Progress(quiet=True) as shown:
        session = Session(command, config, shown, wait=wait)
        stop.last_words = lambda: session.finish(stop.interruption())
        try:
            yield session
            session.check_books()
        except VecbeamError as error:
            if isinstance(error, JobLeftError):
                if not error.exit_code:
                    shown.note(str(error))
                    session.finish()
                    return
            elif isinstance(error, InterruptedRunError):
                error.exit_code = stop.interruption().exit_code
            error.report = session.finish(error)
            raise
        except KeyboardInterrupt as interruption:
            stopped = stop.interruption()
            stopped.report = session.finish(stopped)
            raise stopped from interruption
        except Exception as error:
            session.finish(error)
            raise
        finally:
            stop.last_words = None
        session.finish()


_NO_JOB = Job("", "")


def _left(job: Job, what: str, exit_code: int = 0) -> JobLeftError:
    error = JobLeftError(
        f"the {job} {what}, and this command does not wait for it",
        "the same command attaches to it, or continues after it; until it has ended, other commands that write are "
        f"refused; to end it: {job.cancelling}",
    )
    error.exit_code = exit_code
    return error


def _failure(error: Exception) -> Failure:
    if isinstance(error, VecbeamError):
        return Failure(kind=type(error).__name__, message=error.message, remedy=error.remedy)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Failure(kind=type(error).__name__, message=shortened(lines[-1] if lines else "", LONGEST_MESSAGE))


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def command_of(run_id: str) -> str:
    """The command of a run.

    >>> command_of("20261126T170000.000000Z-backfill-123")
    'backfill'
    """
    return run_id.partition("-")[2].rpartition("-")[0]


class Phase:
    """Times a block of this process: `with Phase(session, "index"): ...`."""

    def __init__(self, session: Session, step: str) -> None:
        self._session = session
        self._step = step
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._session.add_seconds(self._step, time.perf_counter() - self._start)
