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
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata

from pipelines.run.jobs import left_job
from pipelines.run.jobs.held_jobs import HeldJobs
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
from schemas.run_report import CHANGING, FORMAT_VERSION, Failure, Report, Served
from transforms.milvus.alias import served_now
from transforms.support import metrics, process, stop
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

LONGEST_MESSAGE = 1000
"""Characters of the message of another program's error."""


class Session(HeldJobs):
    """A run of one command over one configuration.

    Args:
        wait: false if the run ends once it has started a job on other machines, or finds one that still runs.

    Attributes:
        report: filled during the run, written at its end.
        progress: shows the current step.
        left: the completed job of a run that is gone, whose results may be used.
    """

    def __init__(self, command: str, config: Config, progress: Progress, *, wait: bool = True) -> None:
        # With microseconds: runs are listed in the order of their names, and two may begin within a second.
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{command}-{os.getpid()}"
        report = Report(
            format_version=FORMAT_VERSION, run_id=self.run_id, command=command, name=config.name, alias=config.name
        )
        super().__init__(config, report, progress, wait=wait)
        self.report.could_change = command in CHANGING
        self.report.modality = progress.modality = config.corpus.modality
        self.report.model = config.model_names
        self.report.versions = {"python": sys.version.split()[0], **_versions()}
        self._counters: Counter[str] = Counter()
        self._outside = metrics.OUTSIDE.snapshot()
        self._began = process.run_began()
        self._phases = defaultdict[str, float](float, startup=self.seconds_so_far())

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
    with _resumable(command), progress or Progress(quiet=True) as shown:
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


def _resumable(command: str) -> contextlib.AbstractContextManager[None]:
    """Says of a command that was stopped how it continues; a comparison starts from the beginning."""
    if command == "verify":
        return contextlib.nullcontext()
    return stop.saying("stopped before it was complete", "run the same command to continue where it stopped")


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
