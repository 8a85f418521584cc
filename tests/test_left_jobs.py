"""Commands that do not wait for their job: --no-wait, and the answer to Ctrl-C; then the same command continues.

Beam's own job server runs in this process, its workers in others, which the tests stop and continue.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from job_server_here import PATIENCE_S, THREADS, JobService, Notes, runner_of, state, until, workers
from typer.testing import CliRunner

import vecbeam
from pipelines.cli import app
from schemas.config import Config
from schemas.config.loader import load_config, parse_config
from schemas.errors import ConfigurationError, JobEndedError, LockedError
from schemas.run_report import Report

HERE = ["runner.local_below=1 GB"]
"""All work is small."""
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def path(tmp_path: Path, job_service: JobService, lite_uri: str) -> Path:
    """A configuration whose jobs run in processes of their own."""
    for number in range(2):
        lines = [json.dumps({"id": f"{number}-{at}", "text": f"words of {at}"}) for at in range(20)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    values = {
        "name": f"left_{tmp_path.name}",
        "corpus": {"paths": [str(tmp_path / "*.jsonl")], "content": ["text"]},
        "encoder": {"model": "fake", "dimensions": 8},
        "checkpoint": str(tmp_path / "checkpoint"),
        "collection": {"uri": lite_uri},
        "runner": runner_of(job_service[1], tmp_path),
    }
    (tmp_path / "vecbeam.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "vecbeam.yaml"


def stopped_workers() -> list[psutil.Process]:
    """Waits for the workers of a job, and stops them."""
    found = until(workers, "a worker")
    for process in found:
        process.suspend()
    return found


def resume(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.resume()


def holder(config: Config) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(config.checkpoint) / config.name / "runs" / ".holder.json").read_text())
    return found


def test_no_wait_starts_a_job_and_the_same_command_continues_after_it(path: Path, job_service: JobService) -> None:
    config = load_config(path)
    steps: list[str] = []
    progress = Notes()
    report = Report(run_id="", command="", name="")
    for turn in range(4):
        progress = Notes()
        report = vecbeam.backfill(load_config(path, THREADS if turn else ()), progress, wait=False)
        assert report.exit_code == 0
        assert report.error is None
        if not report.remote_jobs:
            break
        [job] = report.remote_jobs
        assert job.left
        assert f"portable job {job.id}" in progress.notes[-1]
        assert "same command attaches" in progress.notes[-1]
        steps.append(job.step)
        if job.step == "embed":
            check_held(config, job.id, stopped_workers(), job_service[0])
        until(lambda job=job: state(job_service[0], job.id) == "DONE", "the end of the job")
    # Each step is one job: nothing is embedded, loaded or compared a second time.
    assert steps == ["embed", "load and verify"]
    assert report.verify.published
    assert (report.items.read, report.verify.found, report.verify.recall_at_10) == (40, 40, 1.0)
    assert any("using the results of the portable job" in note for note in progress.notes), "of the comparison"
    root = Path(config.checkpoint) / config.name / "runs"
    assert not (root / ".holder.json").exists()
    assert not (root / "left.json").exists()
    assert not list(root.glob("*/**/*.parquet")), "results of jobs are deleted"
    again = vecbeam.backfill(load_config(path, HERE), wait=False)
    assert (again.remote_jobs, again.chunks.embedded, again.exit_code) == ([], 0, 0)


def check_held(config: Config, job: str, processes: list[psutil.Process], server: LocalJobServicer) -> None:
    """While a job that nobody waits for runs, nobody else writes, and the same command attaches to it."""
    try:
        assert state(server, job) == "RUNNING"
        assert [held["id"] for held in holder(config)["jobs"]] == [job]
        with pytest.raises(LockedError, match=rf"held by the portable job {job} .*which is RUNNING"):
            vecbeam.sync(config)
        attached = vecbeam.backfill(config, wait=False)
        assert [(found.id, found.step, found.left) for found in attached.remote_jobs] == [(job, "attached", True)]
        assert attached.exit_code == 0
    finally:
        resume(processes)


def test_a_left_job_that_fails_is_told_once(path: Path, job_service: JobService) -> None:
    config = load_config(path)
    [job] = vecbeam.backfill(config, wait=False).remote_jobs
    processes = stopped_workers()
    job_service[0].Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job.id))
    for process in processes:
        process.kill()
    with pytest.raises(JobEndedError, match=rf"portable job {job.id} .* left running for its step embed, ended as CA"):
        vecbeam.backfill(config)
    done = vecbeam.backfill(load_config(path, HERE))
    assert done.verify.found == 40
    assert not done.remote_jobs


def test_changed_files_are_not_taken_for_those_of_a_left_job(path: Path, job_service: JobService) -> None:
    config, options = load_config(path, THREADS), [word for each in THREADS for word in ("--set", each)]
    answer = CliRunner().invoke(app, ["backfill", str(path), *options, "--no-wait", "--json"])
    assert answer.exit_code == 0
    [job] = json.loads(answer.stdout)["remote_jobs"]
    assert job["left"]
    until(lambda: state(job_service[0], job["id"]) == "DONE", "the end of the job")
    (path.parent / "2.jsonl").write_text('{"id": "later", "text": "came later"}\n')
    done = vecbeam.backfill(load_config(path, HERE))
    assert done.verify.found == 41
    assert not list((Path(config.checkpoint) / config.name / "runs").glob("*/**/*.parquet"))


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        (
            {"name": "local"},
            r"--no-wait: with runner.name: local the command itself does the work. leave --no-wait out",
        ),
        (
            {"name": "portable", "job_endpoint": "localhost:9", "environment_type": "LOOPBACK"},
            "--no-wait: with runner.environment_type: LOOPBACK the workers are the command's own process",
        ),
        ({"name": "flink"}, "--no-wait: Beam starts the job server of runner flink in the command's own process"),
    ],
)
def test_no_wait_is_refused_where_the_job_ends_with_the_command(
    tmp_path: Path, runner: dict[str, Any], reason: str
) -> None:
    (tmp_path / "a.txt").write_text("text")
    values = {
        "name": "refused",
        "corpus": {"paths": ["gs://bucket/*.txt"]},
        "encoder": {"model": "fake"},
        "checkpoint": "gs://bucket/checkpoint",
        "collection": {"uri": "http://127.0.0.1:9"},
        "runner": runner,
    }
    config = parse_config(values, folder=tmp_path)
    for command in (vecbeam.backfill, vecbeam.sync, vecbeam.reindex, vecbeam.replay, vecbeam.load):
        with pytest.raises(ConfigurationError, match=reason):
            command(config, wait=False)  # type: ignore[operator]


class Terminal:
    """A command at a pseudo terminal."""

    def __init__(self, *arguments: str) -> None:
        self.said = ""
        self._process, self._terminal = pty.fork()
        if not self._process:
            os.chdir(ROOT)
            os.execv(sys.executable, [sys.executable, "-m", "vecbeam", *arguments])

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            if select.select([self._terminal], [], [], 0.2)[0]:
                self.said += os.read(self._terminal, 4096).decode(errors="replace")

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def ended(self) -> tuple[int, float]:
        """Exit code, and seconds until the process ended."""
        began = time.monotonic()
        while True:
            with_output, _, _ = select.select([self._terminal], [], [], 0.05)
            if with_output:
                with contextlib.suppress(OSError):  # the other side is closed
                    self.said += os.read(self._terminal, 4096).decode(errors="replace")
            process, status = os.waitpid(self._process, os.WNOHANG)
            if process:
                os.close(self._terminal)
                return os.waitstatus_to_exitcode(status), time.monotonic() - began
            assert time.monotonic() - began < PATIENCE_S, self.said


@pytest.mark.parametrize("answer", ["l\n", "\x03"])
def test_ctrl_c_at_a_terminal_asks_about_the_job(path: Path, job_service: JobService, answer: str) -> None:
    config = load_config(path)
    before = set(workers())
    terminal = Terminal("backfill", str(path))
    terminal.read_until("started portable job ")
    processes = [process for process in stopped_workers() if process not in before]
    terminal.press("\x03")
    terminal.read_until("leaves it running")
    job = terminal.said.partition("started portable job ")[2].split()[0]
    assert state(job_service[0], job) == "RUNNING", "nothing is cancelled before the answer"
    terminal.press(answer)
    code, seconds = terminal.ended()
    assert code == 130, terminal.said
    assert seconds < 5
    if answer == "\x03":
        assert state(job_service[0], job) == "CANCELLED"
        for process in processes:
            process.kill()
        return
    assert state(job_service[0], job) == "RUNNING"
    assert f"the portable job {job}" in terminal.said.replace("\r\n", " ")
    assert [held["id"] for held in holder(config)["jobs"]] == [job]
    resume(processes)
    progress = Notes()
    done = vecbeam.backfill(load_config(path, HERE), progress)
    assert done.verify.found == 40
    assert f"attached to portable job {job}" in progress.notes[0]
    assert any(f"using the results of the portable job {job}" in note for note in progress.notes)


def test_without_a_terminal_ctrl_c_cancels_at_once(path: Path, job_service: JobService) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "vecbeam", "backfill", str(path), "--json"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    job = ""
    for line in process.stderr:
        if "started portable job " in line:
            job = line.partition("started portable job ")[2].split()[0]
            break
    processes = stopped_workers()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, said = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert "leaves it running" not in said
    assert json.loads(output)["exit_code"] == 130
    assert state(job_service[0], job) == "CANCELLED"
    for one in processes:
        one.kill()
