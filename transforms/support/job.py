"""Jobs of runners whose workers are other machines: how one is named, and whether it still runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

ASK_S = 20.0
"""Seconds to wait for a job's state."""
ENDED = frozenset({"DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED"})
"""States of Beam's `PipelineState` in which no worker writes any more."""


class JobState(NamedTuple):
    """The state of a job.

    Attributes:
        name: in Beam's words, "" where it is not known.
        reason: why it is not known.
    """

    name: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.name in ENDED


@dataclass(frozen=True)
class Job:
    """A job as written into a lock.

    Attributes:
        id: in the runner.
        runner: its name in the configuration.
        place: where to ask its runner about it: project and region, or the endpoint of a job server.
    """

    id: str
    runner: str
    place: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        where = ", ".join(f"{name} {value}" for name, value in self.place.items())
        return f"{self.runner} job {self.id}" + (f" ({where})" if where else "")

    @property
    def console(self) -> str:
        """Where a person sees it; "" if that is not known."""
        if self.runner == "dataflow" and {"project", "region"} <= set(self.place):
            project, region = self.place["project"], self.place["region"]
            return f"https://console.cloud.google.com/dataflow/jobs/{region}/{self.id}?project={project}"
        return ""

    @property
    def cancelling(self) -> str:
        """How a person cancels it."""
        if self.runner == "dataflow":
            options = "".join(f" --{name}={value}" for name, value in self.place.items())
            return f"gcloud dataflow jobs cancel {self.id}{options}"
        return "cancel it with the tools of its cluster"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The job that `as_json` described."""
        return cls(str(values["id"]), str(values["runner"]), dict(values.get("place", {})))

    def state(self) -> JobState:
        """Asks the runner; a job of unknown state has the name ""."""
        try:
            if self.runner == "dataflow":
                return JobState(_dataflow_state(self))
            if "endpoint" in self.place:
                return JobState(_job_server_state(self))
        except Exception as error:  # of a library, a network, a service: all of them mean that it is not known
            return JobState("", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        return JobState("", f"the runner {self.runner} can't report the state of a job of another process")


def _dataflow_state(job: Job) -> str:
    from google.cloud import dataflow

    client = dataflow.JobsV1Beta3Client()
    request = dataflow.GetJobRequest(project_id=job.place["project"], location=job.place["region"], job_id=job.id)
    found = client.get_job(request=request, timeout=ASK_S)
    return str(dataflow.JobState(found.current_state).name).removeprefix("JOB_STATE_")


def _job_server_state(job: Job) -> str:
    import grpc  # type: ignore[import-untyped]
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    with grpc.insecure_channel(job.place["endpoint"]) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)
        found = service.GetState(beam_job_api_pb2.GetJobStateRequest(job_id=job.id), timeout=ASK_S)
    return str(beam_job_api_pb2.JobState.Enum.Name(found.state))
