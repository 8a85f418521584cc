"""Runs a Beam pipeline on the configuration's runner; returns its counters, and raises workers' errors as vecbeam's."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipelines.run import beam_classes, question
from pipelines.run.job_watch import JobWatch, counters_of, wall_times
from pipelines.run.left_job import why_bound
from pipelines.run.runner_options import check_job_server, check_known, check_program
from pipelines.run.worker_faults import worker_fault
from schemas.config import Config
from schemas.errors import (
    ConfigurationError,
    InterruptedRunError,
    JobEndedError,
    JobLeftError,
    VecbeamError,
    without_label,
)
from transforms.support import process, stop
from transforms.support.job import ENDED, Job
from transforms.support.storage.remote import bucket_client

log = logging.getLogger("vecbeam")
POLL_S = 0.5
CANCEL_S = 1.5
"""Seconds to wait for the answer to a cancellation: Ctrl-C ends a command within five."""

# `local` is Beam's in-process runner by its own name: DirectRunner would look for a Prism binary on the network first.
RUNNERS = {
    "local": "FnApiRunner",
    "DirectRunner": "FnApiRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "portable": "PortableRunner",
    "prism": "PrismRunner",
}


class _Options(PipelineOptions):  # type: ignore[misc]
    """Beam's options, with each view made once: Beam asks for some hundred a job, and makes a parser for each."""

    def view_as(self, cls: type[Any]) -> Any:
        views: dict[type[Any], Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def pipeline_options(config: Config) -> PipelineOptions:
    """Beam's options for a configuration.

    Raises:
        ConfigurationError: if `runner` has a key that Beam or the runner does not know.
    """
    options = _Options.from_dictionary({"runner": RUNNERS[config.runner.name], **config.runner_options})
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):  # argparse prints its usage and exits
            known = options.get_all_options()
    except SystemExit:
        reason = complaint.getvalue().strip().splitlines()[-1:] or ["Beam does not take it"]
        raise ConfigurationError(
            f"runner: {reason[0].rsplit('error: ', 1)[-1]}",
            "correct that option; all keys of runner except name are Beam's pipeline options",
        ) from None
    check_known(config, known)
    return options


def prepare_filesystems(config: Config) -> None:
    """Gives Beam's filesystems the configuration's options in this process.

    Raises:
        ConfigurationError: if an object store is named whose library or credentials are missing, or a job server
            that can't be started.
    """
    check_program(config)
    FileSystems.set_options(pipeline_options(config))
    named = [("checkpoint", config.checkpoint), *(("corpus.paths", path) for path in config.corpus.paths)]
    for key, path in named:
        try:
            # A public bucket can be read without credentials, and not be written to.
            bucket_client.check(path, anonymous=key != "checkpoint")
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {error.message}", error.remedy) from error


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


def run(
    config: Config,
    build: Callable[[beam.Pipeline], Any],
    jobs: Jobs | None = None,
    *,
    one_writer: bool = False,
    reads: int | None = None,
) -> Counter[str]:
    """Builds and runs a pipeline to its end.

    If this process stops or fails before a job on other machines has ended, it cancels the job.

    Args:
        jobs: receives such a job.
        one_writer: uses one worker in this process, whatever the configuration says: for Milvus Lite.
        reads: bytes that the pipeline reads. If they are fewer than `runner.local_below`, it runs in this process.

    Returns:
        The pipeline's counters.

    Raises:
        VecbeamError: what a worker raised, or that no job server answers.
        JobLeftError: if the job runs on, and nobody waits for it here.
    """
    if process.is_own():
        beam_classes.remember()
    options = pipeline_options(config)
    here = runs_here(config, reads)
    if one_writer or (here and not config.runner.is_local):
        direct = options.view_as(DirectOptions)
        direct.direct_num_workers, direct.direct_running_mode = 1, "in_memory"
    if options.view_as(DirectOptions).direct_running_mode == "multi_processing":
        _check_folder()
    pipeline = beam.Pipeline(runner=RUNNERS["local" if here else config.runner.name], options=options)
    build(pipeline)
    stop.check()
    if not here:
        check_job_server(config)
    try:
        # The steps of this process check for a stop themselves, and so does the wait for a job on other machines.
        with stop.deferred():
            result = pipeline.run()
            job = None if here else job_of(config, result)
            if job is None:
                result.wait_until_finish()
                counters = counters_of(result)
            else:
                counters = _wait(config, result, job, jobs)
    except JobLeftError:
        raise
    except VecbeamError as error:
        raise without_label(error) from error
    except Exception as error:
        fault = worker_fault(str(error))
        if fault is not None:
            raise fault from error
        raise
    return counters


def runs_here(config: Config, reads: int | None) -> bool:
    """Whether a pipeline runs in this process and not as a job on other machines.

    Args:
        reads: bytes that it reads; None if that is not known.
    """
    return config.runner.is_local or (reads is not None and reads < config.runner.local_below)


def _check_folder() -> None:
    """Refuses to start worker processes in a folder whose packages they would take for vecbeam's.

    Raises:
        ConfigurationError: naming the folder.
    """
    # Beam starts them with `python -m`; the command line has set the variable, a program that imports vecbeam may not.
    if os.environ.get("PYTHONSAFEPATH"):
        return
    here, home = Path.cwd(), Path(__file__).resolve().parents[2]
    for name in ("schemas", "transforms", "pipelines"):
        if here != home and ((here / name / "__init__.py").exists() or (here / f"{name}.py").exists()):
            raise ConfigurationError(
                f"runner.direct_running_mode: multi_processing starts workers in {here}, where they would take its "
                f"{name} for vecbeam's",
                "export PYTHONSAFEPATH=1, or start Python in another folder",
            )


def job_of(config: Config, result: Any) -> Job | None:
    """The job behind a pipeline's result; None if there is none, as after a dry run."""
    if not getattr(result, "has_job", True):
        return None
    found = getattr(result, "job_id", None) or getattr(result, "_job_id", None)
    identity = found() if callable(found) else found
    if not identity:
        return None
    options = config.runner.options
    names = ("project", "region") if config.runner.name == "dataflow" else ("job_endpoint",)
    place = {name.removeprefix("job_"): str(options[name]) for name in names if options.get(name)}
    return Job(str(identity), config.runner.name, place)


def _wait(config: Config, result: Any, job: Job, jobs: Jobs | None) -> Counter[str]:
    """Waits for a job in a way that Ctrl-C ends, and cancels the job then; returns its counters.

    Times among them are wall time, not sums over workers.
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
