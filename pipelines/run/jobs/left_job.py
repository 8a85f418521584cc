"""A job on other machines that runs on without the command that started it, and what the next run makes of its work.

The lock names the job until it has ended (`transforms.checkpoint.lock`). `runs/left.json` says in addition what the job
was for, and where its results are: a run of the same command over the same corpus uses them, and does not start the job
again. It is written for each such job, so that the work of a launcher that was killed counts as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from schemas.config import Config
from schemas.errors import ConfigurationError, JobEndedError
from transforms.support.job import Job
from transforms.support.storage import filesystem
from transforms.support.storage.sealed_json import sealed, unsealed


@dataclass(frozen=True)
class LeftJob:
    """A job, and its work.

    Attributes:
        job: in its runner.
        run_id: of the run that started it.
        step: of that run.
        of: digest of what the step worked on.
        folders: with its results, by what they are.
        on_purpose: whether the run ended without waiting for it, and nobody has seen yet how it ended.
    """

    job: Job
    run_id: str
    step: str
    of: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    on_purpose: bool = False

    def write(self, root: str) -> None:
        """Writes it into the checkpoint of a corpus."""
        data = {**asdict(self), "job": self.job.as_json(), "folders": dict(self.folders)}
        filesystem.write_atomic(_uri(root), sealed(data))

    def folder(self, step: str, of: str, name: str) -> str:
        """The folder of some results; "" where the job was for something else."""
        return self.folders.get(name, "") if (self.step, self.of) == (step, of) else ""


def _uri(root: str) -> str:
    return filesystem.join(root, "runs", "left.json")


def forget(root: str) -> None:
    """Deletes what was written about a job: its results are used up, or are about to be deleted."""
    filesystem.delete([_uri(root)])


def finished(root: str) -> LeftJob | None:
    """The last job of a run that is gone, if it was completed and its results are still there to be used.

    To be called by a run that holds the checkpoint.

    Raises:
        JobEndedError: if nobody waited for the job, and it has failed or was ended by somebody. Only once.
    """
    left = _read(root)
    if left is None:
        return None
    state = left.job.state()
    if state.name == "DONE":
        return left
    forget(root)
    for folder in left.folders.values():
        filesystem.delete_folder(folder)
    if left.on_purpose and state.ended:
        where = f" ({left.job.console})" if left.job.console else ""
        raise JobEndedError(
            f"the {left.job}, which run {left.run_id} left running for its step {left.step}, ended as {state.name}",
            f"see the logs of the job and its workers{where}; what was written is kept, and the same command continues "
            "from there with another job",
        )
    return None


def _read(root: str) -> LeftJob | None:
    try:
        found = unsealed(filesystem.read_with_facts(_uri(root))[0])
        return LeftJob(**{**found, "job": Job.from_json(found["job"])})
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # none, damaged, or of another version
        return None


def why_bound(config: Config) -> str:
    """Why jobs of a configuration end with the process that starts them; "" if they outlive it."""
    runner, options = config.runner, config.runner.options
    if runner.is_local:
        return f"with runner.name: {runner.name} the command itself does the work"
    if not runner.workers_elsewhere:
        return "with runner.environment_type: LOOPBACK the workers are the command's own process"
    if runner.name == "dataflow":
        return ""
    endpoint = str(options.get("job_endpoint") or "")
    if not endpoint or endpoint == "embed":
        return f"Beam starts the job server of runner {runner.name} in the command's own process"
    return ""


def check_outlives(config: Config) -> None:
    """Refuses not to wait for jobs that end with the command.

    Raises:
        ConfigurationError: with the reason.
    """
    if reason := why_bound(config):
        remedy = "leave --no-wait out, or " + (
            "set runner.name to a runner whose workers are other machines"
            if config.runner.is_local
            else "start workers elsewhere (runner.environment_type)"
            if not config.runner.workers_elsewhere
            else "name a running job server in runner.job_endpoint"
        )
        raise ConfigurationError(f"--no-wait: {reason}", remedy)
