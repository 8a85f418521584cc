"""Ctrl-C, a full disk, and a Milvus server that goes away: a clear end, and the same command completes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from milvus_server import Server

RECORDS = 64
# A run of which some calls succeed, and the next waits for a stop: no test depends on its speed.
HELD = """
import sys, time
from pathlib import Path
from transforms.load import upsert_parts
from transforms.support import stop as stopping
from transforms.encoders.fake import FakeEncoder
calls, gone = 0, Path(sys.argv[1])
def hold(function, over):
    def held(*args, **kwargs):
        global calls
        calls += 1
        for _ in range(6000 if calls > 3 else 0):
            if over():
                break
            time.sleep(0.05)
        return function(*args, **kwargs)
    return held
if gone.name == "interrupted":
    FakeEncoder.encode = hold(FakeEncoder.encode, stopping.requested)
else:
    upsert_parts.milvus.upsert = hold(upsert_parts.milvus.upsert, gone.exists)
from pipelines.entry import main
sys.argv[1:] = sys.argv[2:]
main()
"""


def write(folder: Path, checkpoint: str = "checkpoint", uri: str = "./milvus.db", words: int = 5) -> Path:
    lines = [json.dumps({"id": str(n), "text": f"{n} " * words}) for n in range(RECORDS)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    path = folder / "vecbeam.yaml"
    path.write_text(
        f"name: stopped\ncorpus: {{paths: ['*.jsonl']}}\nencoder: {{model: fake}}\nbatch_rows: 4\n"
        f"checkpoint: {checkpoint}\ncollection: {{uri: '{uri}', retry_s: 2, message_rows: 1}}\n"
    )
    return path


def backfill(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.entry", "backfill", str(path), "--json", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def start_held(mark: Path, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HELD, str(mark), "backfill", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("parts/*.parquet"))


def wait_for(count: int, folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if len(list(folder.rglob(pattern))) >= count:
            return
        assert process.poll() is None, "ended too early"
        time.sleep(0.05)
    raise TimeoutError(f"{pattern} did not come")


def test_ctrl_c_stops_after_the_batch_at_hand(tmp_path: Path) -> None:
    path = write(tmp_path)
    process = start_held(tmp_path / "interrupted", path)
    wait_for(3, tmp_path, "parts/*.parquet", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)

    assert process.returncode == 130
    assert "run the same command to continue" in errors
    assert "Traceback" not in errors
    done = parts(tmp_path)
    assert 3 <= len(done) < RECORDS // 4
    again = backfill(path)
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert report["chunks"]["reused"] == 4 * len(done)
    assert report["verify"]["found"] == RECORDS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    path = write(tmp_path, checkpoint="disk/checkpoint", words=50)
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(190_000))
    done = backfill(path)

    assert done.returncode == 1
    assert "free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(small_disk.rglob("*.tmp")) == []
    assert len(parts(small_disk)) < RECORDS // 4
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    again = backfill(path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["verify"]["found"] == RECORDS


@pytest.mark.server
def test_the_server_goes_away_while_loading(tmp_path: Path, own_server: Server) -> None:
    path = write(tmp_path, uri=own_server.uri)
    process = start_held(tmp_path / "gone", path)
    wait_for(2, tmp_path, "loads/*/*.json", process)
    own_server.kill()
    (tmp_path / "gone").touch()
    _, errors = process.communicate(timeout=300)

    assert process.returncode == 1
    assert "does not answer" in errors
    assert "Traceback" not in errors
    restarted = own_server.restart()
    try:
        again = backfill(path)
    finally:
        restarted.stop()
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert (report["chunks"]["embedded"], report["verify"]["found"]) == (0, RECORDS)
    assert report["chunks"]["loaded"] <= RECORDS - 8


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this test alone, which it may kill."""
    from milvus_server import NamespaceError, start_server

    try:
        server = start_server(tmp_path_factory.mktemp("own"))
    except NamespaceError as error:
        pytest.skip(str(error))
    yield server
    server.stop()
