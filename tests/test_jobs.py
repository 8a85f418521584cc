"""Jobs of workers elsewhere: shown, written into the lease, cancelled by Ctrl-C and by errors, waited for by others."""

from __future__ import annotations

import _thread
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_job_api_pb2
from job_server_here import JobService, Notes

from pipelines.run.jobs import beam_job, job_wait
from pipelines.run.jobs.beam_options import pipeline_options
from pipelines.run.session import Session
from schemas.config import Config
from schemas.config.loader import parse_config
from schemas.errors import CheckpointError, InterruptedRunError, JobEndedError, LockedError, VecbeamError
from transforms.checkpoint import lock
from transforms.support import metrics, stop
from transforms.support.job import Job

PATIENCE_S = 60.0


def configured(folder: Path, endpoint: str) -> Config:
    return parse_config(
        {
            "name": "tested",
            "corpus": {"paths": [str(folder / "*.jsonl")]},
            "encoder": {"model": "fake"},
            "checkpoint": str(folder / "checkpoint"),
            "collection": {"uri": "http://127.0.0.1:9"},
            "runner": {"name": "portable", "job_endpoint": endpoint, "environment_type": "LOOPBACK"},
        },
        folder=folder,
    )


def waiting_for(marker: Path) -> Callable[[beam.Pipeline], Any]:
    """A pipeline that reports its start, and runs until a file exists."""
    path = str(marker)

    def wait(element: int) -> int:
        import time
        from pathlib import Path

        Path(path + ".begun").touch()
        while not Path(path).exists():
            time.sleep(0.05)
        return element

    return lambda pipeline: pipeline | beam.Create([1]) | beam.Map(wait)


def when(come: Callable[[], Any], then: Callable[[], Any]) -> threading.Thread:
    def watch() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not come() and time.monotonic() < deadline:
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_cancels_the_job_and_the_lease_names_it(tmp_path: Path, job_service: JobService) -> None:
    servicer, endpoint = job_service
    config, marker = configured(tmp_path, endpoint), tmp_path / "go"
    holder = tmp_path / "checkpoint" / "tested" / "runs" / ".holder.json"
    progress, leases, refusals = Notes(), [], []
    session = Session("backfill", config, progress)

    def begun() -> None:
        # The command is killed now, as far as another run can tell: its lease is all that is left.
        left = json.loads(holder.read_text())
        leases.append(left)
        elsewhere = tmp_path / "elsewhere" / "tested" / "runs"
        elsewhere.mkdir(parents=True)
        (elsewhere / ".holder.json").write_text(json.dumps(left))
        try:
            with lock.held(str(elsewhere.parent), "second"):
                pass
        except LockedError as error:
            refusals.append(str(error))
        _thread.interrupt_main()

    try:
        watching = when((tmp_path / "go.begun").exists, begun)
        with session.exclusive(), pytest.raises(KeyboardInterrupt):
            beam_job.run(config, waiting_for(marker), session)
        watching.join()
    finally:
        marker.touch()
    [job] = leases[0]["jobs"]
    state = servicer.GetState(beam_job_api_pb2.GetJobStateRequest(job_id=job["id"])).state
    assert state == beam_job_api_pb2.JobState.CANCELLED
    assert job["place"] == {"endpoint": endpoint}
    assert session.report.jobs == [f"portable job {job['id']} (endpoint {endpoint})"]
    assert progress.notes[0] == f"started {session.report.jobs[0]}"
    assert job["id"] in refusals[0]
    assert "which is RUNNING" in refusals[0]
    assert not holder.exists()
    with lock.held(str(tmp_path / "elsewhere" / "tested"), "third"):
        pass  # the job has ended


def test_a_stop_and_an_error_of_the_command_cancel_the_job(
    tmp_path: Path, job_service: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, endpoint = job_service
    config, marker = configured(tmp_path, endpoint), tmp_path / "go"
    begun = tmp_path / "go.begun"
    told: list[Job] = []
    jobs = SimpleNamespace(
        may_leave_jobs=True,
        job_started=told.append,
        job_seen=lambda _: None,
        job_ended=lambda job, *_: told.append(job),
        job_left=lambda _: told.clear(),
    )
    try:
        when(begun.exists, stop.request_stop)
        with pytest.raises(InterruptedRunError):
            beam_job.run(config, waiting_for(marker), jobs)
        stop.reset()
        begun.unlink()
        assert len(told) == 2
        assert told[1].state().name == "CANCELLED"

        def refuse(job: Job) -> None:
            told.append(job)
            raise CheckpointError("the lease can't be written")

        jobs.job_started = refuse
        with pytest.raises(CheckpointError, match="the lease can't be written"):
            beam_job.run(config, waiting_for(marker), jobs)
        assert told[-1].state().name == "CANCELLED"
    finally:
        stop.reset()
        marker.touch()


def test_a_job_that_goes_through_leaves_nothing_behind(tmp_path: Path, job_service: JobService) -> None:
    config, marker = configured(tmp_path, job_service[1]), tmp_path / "go"
    marker.touch()
    session = Session("backfill", config, Notes())
    with session.exclusive():
        beam_job.run(config, waiting_for(marker), session)
        assert "jobs" not in json.loads((tmp_path / "checkpoint/tested/runs/.holder.json").read_text())
    assert len(session.report.jobs) == 1
    assert Job.from_json(
        {"id": session.report.jobs[0].split()[2], "runner": "portable", "place": {"endpoint": job_service[1]}}
    )


def test_the_same_command_attaches_to_the_job_of_a_run_that_is_gone(
    tmp_path: Path, job_service: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, marker = configured(tmp_path, job_service[1]), tmp_path / "go"
    monkeypatch.setattr("pipelines.run.jobs.held_jobs.ASK_AGAIN_S", 0.2)
    pipeline = beam.Pipeline(runner="PortableRunner", options=pipeline_options(config))
    waiting_for(marker)(pipeline)
    result = pipeline.run()
    job = beam_job.job_of(config, result)
    assert job is not None
    left = {"run_id": "20261126T000000.000000Z-backfill-1", "host": "elsewhere", "jobs": [job.as_json()]}
    runs = tmp_path / "checkpoint" / "tested" / "runs"
    runs.mkdir(parents=True)
    (runs / ".holder.json").write_text(json.dumps(left))
    try:
        with (
            pytest.raises(LockedError, match=rf"held by the portable job {job.id} .*which is RUNNING"),
            Session("sync", config, Notes()).exclusive(),
        ):
            pass
        progress = Notes()
        when((tmp_path / "go.begun").exists, lambda: when(lambda: progress.notes, marker.touch))
        with Session("backfill", config, progress).exclusive():
            assert marker.exists()
            assert "jobs" not in json.loads((runs / ".holder.json").read_text())
        assert f"attached to {job}" in progress.notes[0]
        assert "has ended (DONE)" in progress.notes[1]
        assert progress.steps == ["attached"]
    finally:
        marker.touch()
        result.wait_until_finish()


def test_a_job_that_somebody_cancelled_is_named(tmp_path: Path, job_service: JobService) -> None:
    servicer, endpoint = job_service
    config, marker = configured(tmp_path, endpoint), tmp_path / "go"
    session = Session("backfill", config, Notes())

    def cancel() -> None:
        servicer.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=session.report.remote_jobs[0].id))

    try:
        when((tmp_path / "go.begun").exists, cancel)
        with session.exclusive(), pytest.raises(JobEndedError, match="CANCELLED: somebody ended it") as ended:
            beam_job.run(config, waiting_for(marker), session)
    finally:
        marker.touch()
    assert "run the same command again" in ended.value.remedy
    assert ended.value.exit_code == 1
    assert not (tmp_path / "checkpoint/tested/runs/.holder.json").exists()


def test_a_job_is_seen_while_it_runs_and_its_times_are_wall_time(
    tmp_path: Path, job_service: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, marker = configured(tmp_path, job_service[1]), tmp_path / "go"

    class Result(Stubborn):
        """A result that tells more with each look, and caches its answer as Beam's does."""

        state = "DONE"

        def __init__(self) -> None:
            super().__init__()
            self._metrics: Any = None
            self.looks = 0

        def metrics(self) -> Any:
            if self._metrics is None:
                self.looks += 1
                told = {"items_done": self.looks, "embed_us": 3_600_000_000, "encoder_busy_us": 1_800_000_000}
                found = [
                    SimpleNamespace(key=SimpleNamespace(metric=SimpleNamespace(name=name)), result=count)
                    for name, count in told.items()
                ]
                self._metrics = SimpleNamespace(query=lambda _: {"counters": found})
            return self._metrics

    result = Result()
    monkeypatch.setattr(beam.Pipeline, "run", lambda _: result)
    progress = Notes()
    session = Session("backfill", config, progress)
    progress.step("embed", total=100)

    def shown() -> bool:
        return result.looks >= 2 and f"{progress.elsewhere['items_done']} of 100" in progress.describe()

    when(lambda: marker.exists() or (progress.elsewhere and shown()), lambda: (marker.touch(), result.ended.set()))
    with session.exclusive():
        counters = beam_job.run(config, lambda _: None, session)
    assert counters["items_done"] == result.looks > 2
    [job] = session.report.remote_jobs
    assert (job.step, job.runner, job.id) == ("embed", "portable", Stubborn._job_id)
    assert job.seconds is not None
    assert job.start_seconds is not None
    assert 0 < job.start_seconds <= job.seconds < PATIENCE_S
    assert counters["embed_us"] / 1e6 == pytest.approx(job.seconds, abs=0.2)
    assert counters["encoder_busy_us"] == pytest.approx(counters["embed_us"] / 2, rel=0.01)


def test_small_work_is_no_job_and_other_work_is_one(tmp_path: Path, job_service: JobService) -> None:
    config = configured(tmp_path, job_service[1])

    def build(pipeline: beam.Pipeline) -> Any:
        return pipeline | beam.Create([1, 2]) | beam.Map(lambda _: metrics.count("items_done", 1))

    session = Session("sync", config, Notes())
    with session.exclusive():
        here = beam_job.run(config, build, session, reads=config.runner.local_below - 1)
        assert session.report.jobs == []
        there = beam_job.run(config, build, session, reads=config.runner.local_below)
    assert here == there == {"items_done": 2}
    assert [job.runner for job in session.report.remote_jobs] == ["portable"]


def test_a_job_server_that_does_not_listen_is_named_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        session = Session("backfill", configured(tmp_path, endpoint), Notes())
        with session.exclusive(), pytest.raises(VecbeamError, match=f"no job server answers at {endpoint} .*refused"):
            beam_job.run(session.config, lambda _: None, session)
    assert session.report.jobs == []


class Stubborn:
    """A result whose job takes its time to end, as Dataflow's do."""

    state = "CANCELLING"
    _job_id = "2026-11-25_1"

    def __init__(self) -> None:
        self.cancelled = 0
        self.ended = threading.Event()

    def cancel(self) -> None:
        self.cancelled += 1

    def wait_until_finish(self) -> None:
        self.ended.wait(PATIENCE_S)


def test_a_job_that_takes_its_time_to_end_keeps_the_lease(
    tmp_path: Path, job_service: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path, job_service[1])
    result = Stubborn()
    monkeypatch.setattr(beam.Pipeline, "run", lambda _: result)
    monkeypatch.setattr(job_wait, "CANCEL_S", 0.2)
    progress = Notes()
    session = Session("backfill", config, progress)

    def work() -> None:
        with session.exclusive():
            when(lambda: session.report.jobs, stop.request_stop)
            beam_job.run(config, lambda _: None, session)

    try:
        with pytest.raises(InterruptedRunError):
            work()
    finally:
        stop.reset()
        result.ended.set()
    assert result.cancelled == 1
    assert "other runs of this checkpoint are refused" in progress.notes[-1]
    for state, refused in (("CANCELLING", "which is CANCELLING"), ("", "only then delete .*runs/.holder.json")):
        found = SimpleNamespace(name=state, reason="no network", ended=False)
        monkeypatch.setattr(Job, "state", lambda _, found=found: found)
        # The same command would wait for the job.
        with (
            pytest.raises(LockedError, match=rf"2026-11-25_1 .*{refused}"),
            Session("sync", config, Notes()).exclusive(),
        ):
            pass
    monkeypatch.setattr(Job, "state", lambda _: SimpleNamespace(name="CANCELLED", ended=True))
    with lock.held(session.root, "later"):
        pass
    assert not (tmp_path / "checkpoint/tested/runs/.holder.json").exists()


def test_a_job_that_nobody_can_be_asked_about_is_not_taken_for_ended() -> None:
    gone = Job("1", "portable", {"endpoint": "localhost:9"})
    assert (gone.state().name, gone.state().ended) == ("", False)
    assert gone.state().reason
    assert not Job("1", "flink").state().ended
    dataflow = Job("1", "dataflow", {"project": "p", "region": "r"})
    assert dataflow.cancelling == "gcloud dataflow jobs cancel 1 --project=p --region=r"
    assert dataflow.console == "https://console.cloud.google.com/dataflow/jobs/r/1?project=p"
    assert gone.console == ""


def test_the_state_of_a_dataflow_job_is_asked_of_google(monkeypatch: pytest.MonkeyPatch) -> None:
    dataflow = pytest.importorskip("google.cloud.dataflow", reason="pip install 'vecbeam[gcp]'")
    asked = []

    def get_job(_: object, request: Any, timeout: float) -> Any:
        asked.append((request.project_id, request.location, request.job_id, timeout > 0))
        return dataflow.Job(current_state=dataflow.JobState.JOB_STATE_CANCELLING)

    monkeypatch.setattr(dataflow.JobsV1Beta3Client, "__init__", lambda _: None)
    monkeypatch.setattr(dataflow.JobsV1Beta3Client, "get_job", get_job)
    job = Job.from_json(Job("7", "dataflow", {"project": "p", "region": "r"}).as_json())
    assert (job.state().name, job.state().ended) == ("CANCELLING", False)
    assert asked[0] == ("p", "r", "7", True)
