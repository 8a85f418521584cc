"""Ctrl-C and SIGTERM, wherever a command is: its exit code, its JSON, its report, and the terminal afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ctrl_c import COMMAND, Pty, Tmux, run_in, write

# The process of the command line, with a test's command instead of the real ones.
STUB = """
import sys, time, types
from pathlib import Path
from pipelines import entry
from transforms.support import stop as stopping
stub = sys.modules["pipelines.cli"] = types.ModuleType("pipelines.cli")
def ready():
    Path(sys.argv[1]).touch()
{app}
stub.app = app
entry.main()
"""
SLEEPS = """
def app():
    ready()
    time.sleep(600)
"""
CHECKS = """
def app():
    with stopping.deferred():
        ready()
        while not stopping.requested():
            time.sleep(0.01)
        Path(sys.argv[1] + ".checked").touch()
    sys.exit(stopping.interruption().exit_code)
"""
# As typer does where it is interrupted before the command has begun.
LEAVES = """
def app():
    try:
        ready()
        time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(130)
"""
HANGS = """
def app():
    stopping.last_words = Path(sys.argv[1] + ".report").touch
    ready()
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""


def stub(tmp_path: Path, app: str, *numbers: int) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a stand-in that gets signals once it is at work."""
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-c", STUB.format(app=app), str(mark), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not mark.exists():
        assert process.poll() is None
    for at, number in enumerate(numbers):
        if at:
            assert process.stderr is not None
            process.stderr.readline()  # what the signal before was answered with; two at once would be one
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("app", [SLEEPS, LEAVES])
def test_a_command_that_waits_is_interrupted(tmp_path: Path, app: str) -> None:
    code, out, errors = stub(tmp_path, app, signal.SIGINT)
    assert code == 130
    assert json.loads(out)["exit_code"] == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors


def test_a_pipeline_stops_at_its_own_safe_point(tmp_path: Path) -> None:
    assert stub(tmp_path, CHECKS, signal.SIGINT)[0] == 130
    assert (tmp_path / "mark.checked").exists()


def test_sigterm_does_the_same(tmp_path: Path) -> None:
    assert stub(tmp_path, CHECKS, signal.SIGTERM)[0] == 143


def test_a_command_that_comes_to_no_safe_point_is_ended_with_its_report(tmp_path: Path) -> None:
    code, out, errors = stub(tmp_path, HANGS, signal.SIGINT)
    assert code == 130
    assert (tmp_path / "mark.report").exists()
    assert "stopping at the next safe point" in errors
    found = json.loads(out)
    assert (found["exit_code"], found["error"]["class"]) == (130, "InterruptedRunError")


def test_the_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    code, _, _ = stub(tmp_path, HANGS, signal.SIGINT, signal.SIGINT)
    assert code == 130
    assert not (tmp_path / "mark.report").exists()


def test_ctrl_c_in_a_terminal_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, model="fake", texts=64)
    terminal = Pty(tmp_path)
    try:
        assert run_in(terminal, f"{COMMAND} backfill", 0.3).code == 130
        ended = run_in(terminal, f"{COMMAND} backfill", None, tmp_path / "checkpoint" / "stopped" / "runs" / ".lock")
        assert ended.code == 130
    finally:
        terminal.close()
    [report] = [json.loads(path.read_text()) for path in tmp_path.glob("checkpoint/stopped/runs/*/report.json")]
    assert (report["exit_code"], report["error"]["class"]) == (130, "InterruptedRunError")
    done = subprocess.run(f"{COMMAND} backfill --json", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verify"]["found"] == 64


def worker_processes(run: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(run.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any("sdk_worker_main" in word for word in child.cmdline()):
                    found.append(child)
    return found


@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_ends_local_worker_processes_too(tmp_path: Path, whole_group: bool) -> None:
    """A terminal signals the workers as well; `kill -INT` and a scheduler the command alone."""
    write(tmp_path, model="fake", texts=64)
    workers = ["--set", "runner={name: local, direct_running_mode: multi_processing, direct_num_workers: 2}"]
    process = subprocess.Popen(
        [*COMMAND.split(), "backfill", "--json", *workers],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(started := worker_processes(process)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert json.loads(out)["error"]["class"] == "InterruptedRunError"
    assert "run the same command to continue" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_prompt_is_on_a_line_of_its_own(tmp_path: Path) -> None:
    terminal = Tmux(tmp_path)
    try:
        assert run_in(terminal, f"{COMMAND} demo", None, tmp_path / "demo" / "vecbeam.yaml").code == 130
    finally:
        terminal.close()
