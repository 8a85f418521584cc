"""How commands end: exit codes, JSON for every end, one line with --quiet, where the configuration is looked for."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, write_jsonl
from typer.testing import CliRunner, Result

from pipelines.cli import app
from pipelines.run.terminal import environment
from schemas.config import Collection, EncoderConfig
from schemas.errors import CollectionError, CorpusError, EncoderError, InterruptedRunError
from transforms import milvus
from transforms.checkpoint import lock
from transforms.encoders import hub, resolve
from transforms.support import stop

ESCAPE = "\x1b[31m"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VECBEAM_CONFIG", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_jsonl(
        tmp_path / "corpus" / "a.jsonl", [{"id": f"{ESCAPE}d{n}", "text": f"{ESCAPE}text {n}"} for n in range(3)]
    )
    configure(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def answer(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON of a command; standard output holds nothing else."""
    done = run(*arguments, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert {"format_version", "exit_code", "error"} <= set(found)
    assert found["exit_code"] == done.exit_code
    if done.exit_code not in (0, 10):
        assert set(found["error"]) == {"class", "message", "remedy"}
    return done.exit_code, found


def test_a_run_from_beginning_to_end(folder: Path) -> None:
    done = run("backfill", "--quiet")
    assert done.exit_code == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith("backfill: items 3 read, 3 new; chunks 3 embedded, 3 loaded; verify 3 rows of 3, recall@10 ")
    assert "; serving tested -> tested_" in line
    assert done.stderr == ""
    # No control character of the corpus reaches a terminal.
    found = run("search", "text")
    assert found.exit_code == 0, found.stderr
    assert "\x1b" not in found.stdout
    assert "\\x1b[31md1#0" in found.stdout
    code, hits = answer("search", "vecbeam.yaml", "text")
    assert (code, hits["error"], len(hits["hits"])) == (0, None, 3)
    assert hits["hits"][0]["id"].startswith(ESCAPE)
    assert answer("plan", "--exit-code")[0] == 0
    assert run("plan", "--quiet").stdout == "plan: items 3 unchanged; nothing to do\n"
    (folder / "more.jsonl").write_text('{"id": "d4", "text": "another text"}\n')
    corpus = ["--set", 'corpus.paths=["corpus/*", "*.jsonl"]']
    [line] = run("plan", "--quiet", *corpus).stdout.splitlines()
    assert line.startswith("plan: items 1 new, 3 unchanged; to embed 1 chunks, ")
    assert "; run: vecbeam sync vecbeam.yaml --set " in line
    (folder / "more.jsonl").unlink()
    assert answer("report")[1]["error"] is None
    assert answer("gc")[0] == 0
    with lock.held(str(folder / "checkpoint" / "tested"), "the-first"):
        code, refused = answer("sync")
    assert (code, refused["error"]["class"]) == (1, "LockedError")


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (CorpusError("a file vanished", "put it back"), 1, "CorpusError"),
        (InterruptedRunError("stopped", "again"), 130, "InterruptedRunError"),
        (KeyboardInterrupt(), 130, "InterruptedRunError"),
        (RuntimeError("odd\nsecond line"), 1, "RuntimeError"),
    ],
)
def test_each_error_has_its_code_and_its_json_with_debug_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, debug: list[str], error: BaseException, code: int, name: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("pipelines.plan.plan", fail)
    done = run("plan", *debug)
    assert done.exit_code == code
    assert done.stdout == ""
    assert ("Traceback" in done.stderr) == bool(debug)
    assert done.stderr.splitlines()[-1].startswith("vecbeam: ")
    found = answer("plan", *debug)
    assert (found[0], found[1]["error"]["class"]) == (code, name)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["plan", "--no-such-option"], "UsageError"),
        (["no-such-command"], "UsageError"),
        (["init"], "UsageError"),
        (["plan", "a.yaml", "b.yaml"], "UsageError"),
        (["search", "q", "-k", "0"], "UsageError"),
        (["plan", "missing.yaml"], "ConfigurationError"),
        (["sync", "--set", "batch_rows=many"], "ConfigurationError"),
        (["search", "a", "b", "c"], "ConfigurationError"),
        (["search", "vecbeam.yaml"], "ConfigurationError"),
        (["search", "caf\udce9"], "ConfigurationError"),
        (["report", "no-such-run"], "ConfigurationError"),
    ],
)
def test_wrong_usage_is_one_line_and_json(folder: Path, arguments: list[str], name: str) -> None:
    if arguments[0] != "init":  # which has no --json
        code, found = answer(*arguments)
        assert (code, found["error"]["class"]) == (2, name)
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("vecbeam: ")
    line.encode()


def test_each_mistake_of_a_configuration_is_a_line(folder: Path) -> None:
    path = folder / "vecbeam.yaml"
    path.write_text(path.read_text() + "unknown: 1\n")
    done = run("plan", "--set", "verify.recall_at_10=high")
    lines = done.stderr.splitlines()
    assert len(lines) == 2, lines
    assert any(line.startswith("vecbeam: --set verify.recall_at_10: ") for line in lines)
    assert any(f"vecbeam.yaml:{len(path.read_text().splitlines())}:1: unknown key 'unknown'" in line for line in lines)


def test_the_configuration_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "vecbeam.yaml").rename(folder / "other.yaml")
    assert "there is no configuration file vecbeam.yaml" in run("report").stderr
    nothing, unknown = run("report", "other.yaml"), run("report", "other.yaml", "2026")
    assert "no report of any run" in nothing.stderr
    assert "no report of run 2026 " in unknown.stderr
    # No run was made yet, as for the other commands that look; or the command names a run that does not exist.
    assert (nothing.exit_code, run("export", "rows.jsonl", "other.yaml").exit_code) == (1, 1)
    assert unknown.exit_code == 2
    monkeypatch.setenv("VECBEAM_CONFIG", "other.yaml")
    monkeypatch.setattr(environment, "_given", dict(environment.os.environ))
    assert "no report of any run" in run("report").stderr
    assert "no report of run 2026 " in run("report", "2026").stderr


def test_a_server_that_is_not_there_is_looked_for_behind_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    away = Collection(uri="http://milvus.invalid:19530", retry_s=0, timeout_s=0.5)
    with pytest.raises(CollectionError, match=r"gRPC takes the proxy of http_proxy; .* into no_proxy"):
        milvus.connect(away)


def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "HUB_S", 0.5)
        with pytest.raises(EncoderError) as failed:
            resolve(EncoderConfig(model="some/model-that-is-not-kept", revision="abc"))
    assert failed.value.message == "can't fetch some/model-that-is-not-kept at revision abc from the hub: timed out"


def test_the_version_and_short_help() -> None:
    assert run("--version").stdout.startswith("vecbeam ")
    assert "Usage" in run("-h").stdout
    assert run("sync", "-h").stdout == run("sync", "--help").stdout
    assert "--full-refresh" in run("reindex", "-h").stdout
    assert "--anew" not in run("reindex", "-h").stdout


def test_a_signal_is_noted_while_the_interrupted_thread_holds_the_lock_of_its_wait() -> None:
    handler = threading.Thread(target=stop.announce, args=(130,), daemon=True)
    try:
        with stop._STOP._cond:  # as inside `Event.wait`
            handler.start()
            handler.join(20)
            assert stop.requested()
        with pytest.raises(InterruptedRunError):
            stop.check()
    finally:
        stop.reset()
    stop.check()


def test_waiting_ends_when_a_stop_is_asked_for() -> None:
    stop.request_stop(143)
    try:
        with pytest.raises(InterruptedRunError) as stopped:
            stop.sleep(600)
        assert stopped.value.exit_code == 143
    finally:
        stop.reset()


def test_milvus_on_this_machine_is_reached_past_a_proxy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from schemas.config.loader import load_config

    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    config = load_config(folder / "vecbeam.yaml").collection
    with milvus.connected(config) as connection:
        assert connection.client.list_collections() == []
    milvus.release(config)


ABORTS = """
import atexit, ctypes, sys, threading, time
from pathlib import Path

library = ctypes.CDLL(None)
library.__cxa_atexit(library.abort, None, None)
atexit.register(Path("handler").touch)
threading.Thread(target=lambda: (time.sleep(0.3), Path("thread").touch())).start()
sys.argv[0] = "vecbeam"
from pipelines.entry import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the name of the function is that of glibc")
@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["plan", "none.yaml"], 2)])
def test_a_native_library_that_aborts_at_exit_does_not_change_the_exit_code(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    """Threads have ended by then, and Python's exit handlers have run."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", ABORTS, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "vecbeam" in done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"handler", "thread"}
