"""Whether a job can start on the runner of a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.run.jobs.beam_options import check_runner
from pipelines.run.jobs.runner_options import check_job_server
from pipelines.steps.diagnosis.check import Check, fail, ok, skipped
from schemas.config import Config
from schemas.errors import ConfigurationError, VecbeamError


def check_options(config: Config) -> Iterator[Check]:
    """Looks at the runner's options and the programs that they name; a local runner that is right is not mentioned."""
    try:
        check_runner(config)
    except ConfigurationError as error:
        yield fail("runner", error.message, error.remedy)
        return
    if not config.runner.is_local:
        yield ok("runner", f"{config.runner.name}; Beam knows its options")


def check_server(config: Config, *, offline: bool) -> Iterator[Check]:
    """Connects to the job server, if the configuration names one; starts no job."""
    endpoint = config.runner.options.get("job_endpoint")
    if not endpoint:
        return
    if offline:
        yield skipped("job server", f"{endpoint} may be on another machine, and --offline is set")
        return
    try:
        check_job_server(config)
    except VecbeamError as error:
        yield fail("job server", error.message, error.remedy)
        return
    yield ok("job server", f"{endpoint} listens")
