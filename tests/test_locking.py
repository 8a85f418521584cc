"""One run at a time on one checkpoint: by a file lock on a local disk, by a lease on an object store."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.sync import sync
from schemas.config import Config
from schemas.errors import InterruptedRunError, LockedError
from transforms import milvus
from transforms.checkpoint import holder, lock, store_lease
from transforms.support import stop
from transforms.support.storage import filesystem

PATIENCE_S = 120.0
HOLDER = """
import sys, time
from pathlib import Path
from pipelines.run.jobs.beam_options import prepare_filesystems
from schemas.config.loader import load_config
from transforms.checkpoint import lock as locking
config = load_config(Path(sys.argv[1]))
prepare_filesystems(config)
with locking.held(f"{config.checkpoint}/{config.name}", "20260101T000000Z-sync-1"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(n), "text": text(n)} for n in range(10)])
    found = configure(tmp_path)
    yield found
    milvus.release(found.collection)


@pytest.fixture
def stored(tmp_path: Path, s3_endpoint: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration whose checkpoint is in its own bucket."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setattr(store_lease, "SETTLE_S", 0.05)
    bucket = f"bucket-{abs(hash(tmp_path))}"
    boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    runner = {"name": "local", "s3_endpoint_url": s3_endpoint, "s3_region_name": "us-east-1"}
    found = configure(tmp_path, checkpoint=f"s3://{bucket}/checkpoint", runner=runner)
    prepare_filesystems(found)
    return found


@pytest.fixture
def emulated(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """A configuration whose checkpoint is on an emulator of GCS, which ignores conditions."""
    pytest.importorskip("gcp_storage_emulator", reason="pip install 'vecbeam[test]'")
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_port}")
    found = configure(tmp_path, checkpoint="gs://bucket/checkpoint", runner={"name": "local", "project": "test"})
    prepare_filesystems(found)
    yield found
    server.stop()


def root(config: Config) -> str:
    return f"{config.checkpoint}/{config.name}"


def lease(config: Config) -> str:
    return f"{root(config)}/runs/lock.json"


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in (folder / "checkpoint").rglob("*")
        if file.is_file()
    }


@contextlib.contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(folder / "vecbeam.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def check_open(config: Config) -> None:
    with lock.held(root(config), "later"):
        pass


def is_open(config: Config) -> bool:
    try:
        check_open(config)
    except LockedError:
        return False
    return True


def wait_until(come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not come():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_second_run_is_refused_and_writes_nothing(tmp_path: Path, config: Config) -> None:
    backfill(config)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "new", "text": "new"}])
    with lock.held(root(config), "the-first"):
        before = files(tmp_path)
        with pytest.raises(LockedError, match=r"held by run the-first \(process \d+ on .+\) since 20\d\d-.* UTC"):
            sync(config)
        with pytest.raises(LockedError, match="the lock of a killed run expires within a minute"):
            backfill(config)
        refused = CliRunner().invoke(app, ["sync", str(tmp_path / "vecbeam.yaml"), "--quiet"])
        assert refused.exit_code == 1
        assert "the-first" in refused.stderr
        assert files(tmp_path) == before
        with milvus.connected(config.collection) as connection:
            connection.client.load_collection("tested")
            assert milvus.count(connection, "tested") == 10
    assert sync(config).items.new == 1


def test_two_runs_that_start_at_once(config: Config) -> None:
    assert [isinstance(end, LockedError) for end in ends_of_two(root(config))] == [False, True]


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path, config: Config) -> None:
    with another_process(tmp_path) as process:
        with pytest.raises(LockedError, match=rf"20260101T000000Z-sync-1 \(process {process.pid} on"):
            sync(config)
        process.kill()
        process.wait()
        assert sync(config).items.new == 10


def test_an_error_in_the_block_opens_the_lock(config: Config) -> None:
    with pytest.raises(ValueError, match="of the block"), lock.held(root(config), "one"):
        raise ValueError("of the block")
    check_open(config)


def test_a_lease_is_refused_while_held_and_gone_afterwards(tmp_path: Path, stored: Config) -> None:
    with lock.held(root(stored), "the-first"):
        before = filesystem.glob(f"{stored.checkpoint}/**")
        with pytest.raises(LockedError, match=r"held by run the-first \(process \d+ on .+\) since 20\d\d-.* UTC"):
            sync(stored)
        assert filesystem.glob(f"{stored.checkpoint}/**") == before
    assert not filesystem.exists(lease(stored))
    assert sync(stored).items.new == 10
    assert not filesystem.exists(lease(stored))


def test_the_lease_of_a_dead_process_of_this_host_is_taken_over(tmp_path: Path, stored: Config) -> None:
    with another_process(tmp_path) as process:
        with pytest.raises(LockedError, match=rf"process {process.pid} on"):
            check_open(stored)
        process.kill()
        process.wait()
        check_open(stored)


FOREIGN = {"run_id": "far", "host": "far-away", "process": 1, "process_started": 0.0, "since": "yesterday"}


def foreign(config: Config) -> None:
    """Writes a lease of another host."""
    filesystem.write_atomic(lease(config), json.dumps(FOREIGN).encode())


def test_a_lease_that_is_not_renewed_is_taken_over(stored: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(stored)
    with pytest.raises(LockedError, match=r"run far \(process 1 on far-away\) since yesterday"):
        check_open(stored)
    monkeypatch.setattr(holder, "STALE_S", 0.5)
    wait_until(lambda: is_open(stored))


def test_a_holder_renews_its_lease(stored: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.3)
    with lock.held(root(stored), "mine"):
        first = filesystem.glob(lease(stored))[0].modified
        wait_until(lambda: filesystem.glob(lease(stored))[0].modified > first)


def ends_of_two(place: str) -> list[object]:
    """What becomes of two runs that start at once: the first's is its name, the other's the error."""
    ended: list[object] = []
    gate, refused = threading.Barrier(2), threading.Event()

    def hold(name: str) -> None:
        gate.wait()
        try:
            with lock.held(place, name):
                refused.wait(PATIENCE_S)
        except LockedError as error:
            ended.append(error)
        else:
            ended.append(name)
        finally:
            refused.set()

    threads = [threading.Thread(target=hold, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ended, key=lambda end: isinstance(end, LockedError))


def test_where_a_store_has_no_conditions_the_last_of_two_holds_the_lease(
    emulated: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stop, "sleep", lambda _: foreign(emulated))
    # A command that ran before in this process may have set up logging.
    monkeypatch.setattr(store_lease.log, "propagate", True)
    caplog.set_level("WARNING", logger="vecbeam")
    with pytest.raises(LockedError, match="far-away"):
        check_open(emulated)
    assert json.loads(filesystem.read_bytes(lease(emulated)))["run_id"] == "far"
    assert "no conditional writes" in caplog.text


CLOCK = """
import sys, time
clock, ahead = time.time, 0.0
time.time = lambda: clock() + ahead
from pathlib import Path
from pipelines.run.jobs.beam_options import prepare_filesystems
from schemas.config.loader import load_config
from schemas.errors import LockedError
from transforms.checkpoint import holder, lock
from transforms.support.storage import filesystem
config = load_config(Path(sys.argv[1]))
prepare_filesystems(config)
root = f"{config.checkpoint}/{config.name}"
for ahead in (3600.0, -3600.0):
    filesystem.write_atomic(f"{root}/runs/lock.json", sys.argv[2].encode())
    for holder.STALE_S in (60.0, -5.0):
        try:
            with lock.held(root, "mine"):
                print("taken")
        except LockedError:
            print("refused")
"""


def test_a_clock_that_is_an_hour_off_neither_steals_a_lease_nor_waits_for_a_dead_one(
    tmp_path: Path, stored: Config
) -> None:
    command = [sys.executable, "-c", CLOCK, str(tmp_path / "vecbeam.yaml"), json.dumps(FOREIGN)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "taken"] * 2
    assert filesystem.list_files(f"{root(stored)}/runs", "**") == []


def test_a_run_whose_lease_was_taken_while_it_slept_stops(stored: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.3)

    def work() -> None:
        with lock.held(root(stored), "mine"):
            foreign(stored)
            for _ in range(600):  # until the next renewal has looked
                time.sleep(0.1)
                stop.check()

    with pytest.raises(LockedError, match="far-away") as refused:
        work()
    assert isinstance(refused.value.__context__, InterruptedRunError)
    stop.check()
    assert json.loads(filesystem.read_bytes(lease(stored)))["run_id"] == "far"
