"""Beam's Python job server, with several workers a job, whose death ends the job, and with a real cancellation.

    python job_server.py PORT FOLDER ROOTS WORKERS [HIDDEN ...]

FOLDER gets `workers.jsonl`, a line for each worker that starts: its process, root, id and job; and `jobs.jsonl`, a line
for each job that ends: its state, seconds, and by root vecbeam's counters, bundles, and bytes of elements sent back.
ROOTS holds the workers' roots as `<kind>-<number>`; a job chooses a kind by `environment_type: EXTERNAL` and
`environment_config: '{"url": "none", "params": {"root": KIND}}'`. HIDDEN are folders that workers must not see.

What Beam's own server does not have: `_num_workers` is 1 there, it waits for ever for a worker that died, and its
`cancel` only sets the state. Like it, this one retries nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_job_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.worker import data_plane
from worker_roots import worker_command

LOCK = threading.Lock()
FOLDER, ROOTS, HIDDEN = Path(), Path(), list[Path]()
WORKERS = 1
JOBS: dict[str, Job] = {}


def write_line(name: str, facts: dict[str, Any]) -> None:
    with LOCK, open(FOLDER / name, "a") as file:
        file.write(json.dumps(facts) + "\n")


@cache
def boot_program(root: Path) -> subprocess.Popen[str]:
    """The process in a root that starts its workers."""
    command, environment = worker_command(root, HIDDEN)
    with open(FOLDER / f"{root.name}.log", "a") as log:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([*command, root.name], env=environment, stderr=log, text=True, **pipes)


def start_process(root: Path, options: dict[str, str]) -> int:
    """Starts a worker in a root; returns its process id."""
    boot = boot_program(root)
    assert boot.stdin is not None
    assert boot.stdout is not None
    with LOCK:
        print(json.dumps(options), file=boot.stdin, flush=True)
        return int(boot.stdout.readline())


class Connection:
    """What the server counts of one worker, and how it ends the worker's bundles.

    Args:
        handler: Beam's side of the worker.
        process: the worker's.
        host: what it calls its machine.
    """

    def __init__(self, handler: Any, process: int, host: str) -> None:
        self.process, self.host = process, host
        self.counters: Counter[str] = Counter()
        self.bundles = 0
        self._push = handler.control_conn.push
        handler.control_conn.push = self.push
        self._futures: list[Any] = []
        self._dead = ""
        threading.Thread(target=self._watch, daemon=True).start()

    def push(self, request: Any) -> Any:
        """Sends a request, or answers it at once if the worker is dead."""
        future = self._push(request)
        if future is not None:
            self._futures.append(future)
            self.bundles += request.WhichOneof("request") == "process_bundle"
            if self._dead:
                self._answer(future)
        return future

    def count(self) -> None:
        """Adds up the counters of the bundles that the worker has answered."""
        for future in self._futures:
            if not future.is_done():
                continue
            for info in future.get().process_bundle.monitoring_infos:
                if monitoring_infos.is_counter(info) and info.labels.get("NAMESPACE") == "vecbeam":
                    self.counters[info.labels["NAME"]] += monitoring_infos.extract_counter_value(info)
        self._futures = []

    def kill(self, why: str) -> None:
        """Ends the worker, and every bundle that it has not finished."""
        self._dead = self._dead or why
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)

    def _watch(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(self.process, 0)
                time.sleep(0.1)
        self._dead = self._dead or f"the worker {self.host} (process {self.process}) has died"
        for future in self._futures:
            if not future.is_done():
                self._answer(future)

    def _answer(self, future: Any) -> None:
        future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=future.instruction_id, error=self._dead))


@worker_handlers.WorkerHandler.register_environment(
    common_urns.environments.EXTERNAL.urn, beam_runner_api_pb2.ExternalPayload
)
class WorkerInRoot(worker_handlers.GrpcWorkerHandler):  # type: ignore[misc]
    """A worker that the boot program starts in one of the roots."""

    def __init__(self, payload: Any, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._kind = payload.params.get("root", "plain")

    def host_from_worker(self) -> str:
        return "127.0.0.1"

    def start_worker(self) -> None:
        job = JOBS[self.provision_info.job_name]
        root = ROOTS / f"{self._kind}-{len(job.connections) % WORKERS + 1}"
        control, logs = self.control_address, self.logging_api_service_descriptor().url
        options = {"id": self.worker_id, "logging_endpoint": logs}
        options |= {"provision_endpoint": control, "control_endpoint": control}
        process = start_process(root, options)
        job.connections[self.worker_id] = Connection(self, process, root.name)
        facts = {"process": process, "root": root.name, "worker": self.worker_id, "job": job._job_id}
        write_line("workers.jsonl", facts)

    def stop_worker(self) -> None:
        """Waits for nothing: a worker ends when its control stream does."""


class Runner(fn_runner.FnApiRunner):  # type: ignore[misc]
    def __init__(self, provision_info: Any) -> None:
        super().__init__(provision_info=provision_info)
        self._num_workers = WORKERS


class Job(local_job_service.BeamJob):  # type: ignore[misc]
    """A job; `connections` are its workers by id."""

    def __init__(self, job_id: str, pipeline: Any, options: Any, provision_info: Any, *rest: Any) -> None:
        provision_info.job_name = job_id
        super().__init__(job_id, pipeline, options, provision_info, *rest)
        self.connections: dict[str, Connection] = {}
        self._began = time.monotonic()
        JOBS[job_id] = self

    def _invoke_runner(self) -> Any:
        self.set_state(beam_job_api_pb2.JobState.RUNNING)
        try:
            return Runner(self._provision_info).run_via_runner_api(self._pipeline_proto, self.pipeline_options())
        finally:
            for connection in self.connections.values():
                connection.count()

    def set_state(self, new_state: int) -> None:
        if self.is_terminal_state(self.state):
            return  # a cancelled job fails afterwards
        super().set_state(new_state)
        if self.is_terminal_state(new_state):
            self._ended()

    def cancel(self) -> None:
        if not self.is_terminal_state(self.state):
            self.set_state(beam_job_api_pb2.JobState.CANCELLING)
            self.end_workers("the job was cancelled")
            self.set_state(beam_job_api_pb2.JobState.CANCELLED)

    def end_workers(self, why: str) -> None:
        for connection in self.connections.values():
            connection.kill(why)

    def _ended(self) -> None:
        self.end_workers("the job has ended")  # those of a failed job would complete their bundles
        workers = {
            connection.host: {
                "counters": connection.counters,
                "bundles": connection.bundles,
                "bytes": BYTES[worker],
            }
            for worker, connection in self.connections.items()
        }
        state = beam_job_api_pb2.JobState.Enum.Name(self.state)
        seconds = round(time.monotonic() - self._began, 2)
        write_line("jobs.jsonl", {"job": self._job_id, "state": state, "seconds": seconds, "workers": workers})


BYTES: dict[str, int] = defaultdict(int)


class Data(data_plane.BeamFnDataServicer):  # type: ignore[misc]
    """Counts the bytes of elements that each worker sends to the runner."""

    def Data(self, elements_iterator: Any, context: Any) -> Any:
        worker = dict(context.invocation_metadata())["worker_id"]

        def counted() -> Any:
            for elements in elements_iterator:
                BYTES[worker] += sum(len(data.data) for data in elements.data)
                yield elements

        yield from super().Data(counted(), context)


def main(port: int, folder: str, roots: str, workers: int, hidden: list[str]) -> None:
    global FOLDER, ROOTS, WORKERS, HIDDEN
    FOLDER, ROOTS, WORKERS, HIDDEN = Path(folder), Path(roots), workers, [Path(path) for path in hidden]
    worker_handlers.data_plane.BeamFnDataServicer = Data
    servicer = local_job_service.LocalJobServicer(beam_job_type=Job)
    servicer.start_grpc_server(port)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
