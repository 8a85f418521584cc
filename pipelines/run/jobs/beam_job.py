"""Runs a Beam pipeline on the configuration's runner; returns its counters, and raises workers' errors as vecbeam's."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipelines.run.jobs import beam_classes, in_process
from pipelines.run.jobs.beam_options import RUNNERS, options_here, pipeline_options, use_one_worker
from pipelines.run.jobs.job_wait import Jobs, wait_for
from pipelines.run.jobs.job_watch import counters_of, wall_times
from pipelines.run.jobs.runner_options import check_job_server, program_fault
from pipelines.run.jobs.worker_faults import worker_fault
from schemas.config import Config
from schemas.errors import (
    ConfigurationError,
    JobLeftError,
    VecbeamError,
    without_label,
)
from transforms.support import process, stop
from transforms.support.job import Job


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
    here = runs_here(config, reads)
    alone = here and not asks_for_local_runner(config)
    pipeline = beam.Pipeline(
        runner=RUNNERS["local" if here else config.runner.name],
        options=options_here(config) if alone else _options_of_job(config, one_writer=one_writer),
    )
    build(pipeline)
    stop.check()
    if not here:
        check_job_server(config)
    try:
        # The steps of this process check for a stop themselves, and so does the wait for a job on other machines.
        with stop.deferred():
            graph = in_process.Graph(pipeline) if alone else None
            if graph is not None and not graph.unsupported:
                return graph.run()
            began = time.monotonic()
            result = pipeline.run()
            job = None if here else job_of(config, result)
            if job is None:
                result.wait_until_finish()
                counters = counters_of(result)
                if config.runner.options.get("direct_running_mode") == "multi_processing":
                    # Threads of one process share the time of a step (`metrics.timed`), and processes don't.
                    counters = wall_times(counters, time.monotonic() - began)
            else:
                counters = wait_for(config, result, job, jobs)
    except JobLeftError:
        raise
    except VecbeamError as error:
        raise without_label(error) from error
    except Exception as error:
        fault = worker_fault(str(error)) or program_fault(config, str(error))
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


def asks_for_local_runner(config: Config) -> bool:
    """Whether the configuration has an option of Beam's local runner, as for several workers."""
    return config.runner.is_local and any(name.startswith("direct_") for name in config.runner.options)


def _options_of_job(config: Config, *, one_writer: bool) -> PipelineOptions:
    options = pipeline_options(config)
    if one_writer:
        use_one_worker(options)
    if options.view_as(DirectOptions).direct_running_mode == "multi_processing":
        _check_folder()
    return options


def _check_folder() -> None:
    """Refuses to start worker processes in a folder whose packages they would take for vecbeam's.

    Raises:
        ConfigurationError: naming the folder.
    """
    # Beam starts them with `python -m`; the command line has set the variable, a program that imports vecbeam may not.
    if os.environ.get("PYTHONSAFEPATH"):
        return
    here, home = Path.cwd(), Path(__file__).resolve().parents[3]
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
