"""Beam's own job server in the process of a test, and Milvus Lite in another: for jobs whose workers are processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.local_job_service import LocalJobServicer

from pipelines.run.progress import Progress
from schemas.run_report import Report

JobService = tuple[LocalJobServicer, str]
"""A job server in this process, and its address."""
PATIENCE_S = 60.0
THREADS = ["runner.environment_type=beam:env:embedded_python_grpc:v1", "runner.environment_config=''"]
"""Options for workers that are threads of the job server's process: they start at once, and can't be stopped."""


def steps_of(report: Report | None) -> list[str]:
    """The steps of a run that were jobs, each of which has ended."""
    assert report is not None
    assert all(job.seconds is not None for job in report.remote_jobs)
    return [job.step for job in report.remote_jobs]


def until(come: Callable[[], Any], what: str = "it") -> Any:
    """Waits until a function returns something, and returns that."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := come()):
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)
    return found


class Notes(Progress):
    """Shows nothing, and keeps the lines that stay."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def workers() -> list[psutil.Process]:
    """Workers of jobs; only their own first process has this one as its parent's parent or parent."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "apache_beam.runners.worker.sdk_worker_main" in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def state(server: LocalJobServicer, job: str) -> str:
    """The state of a job, by its id."""
    found = server.GetState(beam_job_api_pb2.GetJobStateRequest(job_id=job)).state
    return str(beam_job_api_pb2.JobState.Enum.Name(found))


@contextlib.contextmanager
def job_server() -> Iterator[JobService]:
    found = LocalJobServicer()
    port = found.start_grpc_server(0)
    try:
        yield found, f"localhost:{port}"
    finally:
        found.stop()


def runner_of(endpoint: str, folder: Path) -> dict[str, Any]:
    """The section `runner` for a job server; each step is a job, and its workers are processes of their own.

    Args:
        folder: that the workers see as the launcher does.
    """
    return {
        "name": "portable",
        "job_endpoint": endpoint,
        "environment_type": "beam:env:harness_subprocess_python:v1",
        "environment_config": f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main",
        "local_below": 0,
        "mounted": [str(folder)],
    }


@contextlib.contextmanager
def lite_server(folder: Path) -> Iterator[str]:
    """The address of Milvus Lite for several processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"
    where = [f"--data-dir={folder}", "--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen([sys.executable, "-c", code, "server", *where], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers, "Milvus Lite")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
