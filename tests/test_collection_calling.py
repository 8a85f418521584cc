"""Calls to Milvus: what is retried, what is not, and how errors read. Needs no Milvus except Lite's own tests."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from collection_data import SPEC, configuration
from milvus_lite import server_manager
from milvus_lite.adapter.grpc.server import start_server_in_thread
from pymilvus.exceptions import MilvusException

from schemas.errors import CollectionError
from transforms import milvus
from transforms.milvus import connection
from transforms.milvus.call import OneAttempt, again, call, passes, words
from transforms.support.metrics import TALLY

CONFIG = configuration("http://127.0.0.1:1", retry_s=5.0, timeout_s=7.0)


class RpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING = [
    RpcError(grpc.StatusCode.UNAVAILABLE, "Socket closed"),
    RpcError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    MilvusException(grpc.StatusCode.UNAVAILABLE, "[upsert_rows] Retry timeout: 60.0s, StatusCode.UNAVAILABLE"),
    MilvusException(grpc.StatusCode.CANCELLED, "[describe_collection] Retry timeout: 60.0s, StatusCode.CANCELLED"),
    MilvusException(1, "collection is being flushed, please wait"),
    MilvusException(503, "channel not available[channel=by-dev-rootcoord-dml_1]"),
    MilvusException(2, "Fail connecting to server on 127.0.0.1:1, illegal connection params or server unavailable"),
    ConnectionResetError("Connection reset by peer"),
]
SLOW_DOWN = [
    RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, "request is rejected by grpc RateLimiter middleware"),
    MilvusException(8, "quota exceeded[reason=rate limit exceeded]"),
    MilvusException(9, "deny to write the message because memory quota exhausted"),
    MilvusException(9, "quota exceeded[reason=time tick long delay]"),
    MilvusException(4, "too many concurrent requests, queue is full"),
    MilvusException(65535, "said otherwise", 49),
]
FOR_GOOD = [
    RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (70000000 vs. 67108864)"),
    RpcError(grpc.StatusCode.UNAUTHENTICATED, "auth check failure"),
    caused(
        MilvusException(2, "Fail connecting to server on 127.0.0.1:1, illegal connection params"),
        RpcError(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check username and password"),
    ),
    MilvusException(100, "can't find collection docs_1"),
    MilvusException(9, "quota exceeded[reason=disk quota exceeded, please allocate more resources]"),
    MilvusException(9, "force deny: access has been disabled by the administrator"),
    MilvusException(3, "memory limit exceeded[predict=9000000000]"),
    MilvusException(1100, "invalid parameter: the dim (7) of field data(vector) is not equal to schema dim (8)"),
    CollectionError("ours", "already clear"),
    KeyError("a mistake of vecbeam"),
]


@pytest.mark.parametrize("error", [*PASSING, *SLOW_DOWN], ids=lambda error: words(error)[:40])
def test_what_may_pass_is_tried_again_and_counted(error: Exception) -> None:
    TALLY.reset()
    answers: list[Any] = [error, error, 17]
    limits: list[float] = []

    def flaky(_: str, timeout: float) -> Any:
        limits.append(timeout)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert passes(error)
    assert call(CONFIG, flaky, "docs_1") == 17
    assert TALLY.snapshot() == {"retries": 2} | ({"throttled": 2} if error in SLOW_DOWN else {})
    assert limits == [7.0] * 3


@pytest.mark.parametrize("error", FOR_GOOD, ids=lambda error: words(error)[:40])
def test_what_does_not_pass_is_raised_at_once_in_our_words(error: Exception) -> None:
    TALLY.reset()
    calls: list[str] = []

    def broken(name: str, **_: float) -> Any:
        calls.append(name)
        raise error

    with pytest.raises(CollectionError):
        call(CONFIG, broken, "docs_1")
    assert calls == ["docs_1"]
    assert TALLY.snapshot() == {}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FOR_GOOD[0], r"127.0.0.1:1 refuses a message as too large.*lower collection.message_bytes \(now 16777216\)"),
        (FOR_GOOD[1], "127.0.0.1:1 refuses the token.*MILVUS_TOKEN=user:password"),
        (FOR_GOOD[2], "127.0.0.1:1 refuses the token.*MILVUS_TOKEN=user:password"),
        (FOR_GOOD[3], "127.0.0.1:1: upsert docs_1 failed: can't find collection docs_1"),
        (FOR_GOOD[4], "127.0.0.1:1 takes no writes: upsert docs_1 failed.*disk quota.*raise the quota"),
        (MilvusException(800, "database not found[database=shop]"), "has no database None.*collection.database"),
    ],
)
def test_errors_name_place_and_remedy(error: Exception, said: str) -> None:
    def upsert(*_: Any, **__: Any) -> Any:
        raise error

    with pytest.raises(CollectionError, match=said):
        call(CONFIG, upsert, "docs_1")


def test_the_token_is_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "root:s3cr3t")
    error = caused(MilvusException(1, "bad token root:s3cr3t"), ValueError("header root:s3cr3t"))
    assert words(error) == "bad token ***; header ***"


def test_a_time_out_of_one_attempt_has_always_elapsed_and_is_a_number() -> None:
    limit: float = OneAttempt(60)
    elapsed = 0.001
    assert elapsed >= limit
    assert 1000.0 + limit == 1060.0
    assert isinstance(limit, float)


def test_a_server_that_is_not_there_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.milvus.connection.CONNECT_S", 0.5)
    with pytest.raises(CollectionError, match=r"http://127.0.0.1:1 does not answer.*check that the server runs"):
        milvus.connect(CONFIG)


@pytest.fixture
def hold() -> Any:
    """Opens a Lite file in another process, for as long as the test takes."""
    code = (
        "import sys; from pymilvus import MilvusClient; MilvusClient(sys.argv[1]); print('held', flush=True); input()"
    )
    processes: list[subprocess.Popen[str]] = []

    def start(path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("logged", ["as it is", "off", "nothing at all"])
def test_lite_held_by_another_process(
    tmp_path: Path, hold: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, logged: str
) -> None:
    logger = logging.getLogger("milvus_lite.server_manager")
    monkeypatch.setattr(logger, "disabled", logged == "off")
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL if logged == "nothing at all" else 0)
    path = tmp_path / "milvus.db"
    hold(path)
    with pytest.raises(CollectionError, match=rf"another process holds {path}.*milvus-lite server --data-dir"):
        milvus.connect(configuration(str(path)))


def test_lite_released_can_be_opened_by_another_process(tmp_path: Path, hold: Callable[[Path], None]) -> None:
    config = configuration(str(tmp_path / "milvus.db"))
    with milvus.connected(config) as connection:
        milvus.create(connection, SPEC, "load-one")
    milvus.release(config)
    hold(tmp_path / "milvus.db")


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_retry_is_a_line_of_plain_words(caplog: pytest.LogCaptureFixture) -> None:
    failures = [MilvusException(code=65535, message="fail to search on all shard leaders;\nfailed to get mvccTs")]

    def answer() -> int:
        if failures:
            raise failures.pop()
        return 1

    with caplog.at_level(logging.WARNING, "vecbeam"):
        assert again(CONFIG, "search docs", answer) == 1
    said = "Milvus search docs failed (fail to search on all shard leaders; failed to get mvccTs), attempt 2 follows"
    assert caplog.messages == [said]


def test_each_line_about_a_server_that_is_down_is_of_vecbeam(tmp_path: Path, closed_port: str) -> None:
    file = tmp_path / "vecbeam.yaml"
    settings = f"{{uri: '{closed_port}', timeout_s: 1, retry_s: 3}}"
    file.write_text(
        "name: docs\ncorpus: {paths: [a.jsonl], content: [text]}\nencoder: {model: fake, dimensions: 4}\n"
        f"checkpoint: checkpoint\ncollection: {settings}\n"
    )
    command = [str(Path(sys.executable).parent / "vecbeam"), "search", str(file), "--like", "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("vecbeam: Milvus ") for line in lines), lines
    assert "MilvusException" not in done.stderr
    assert lines[-1].startswith(f"vecbeam: Milvus at {closed_port} does not answer")


@pytest.mark.parametrize("failures", [1, 1000])
def test_lite_that_can_not_be_reached_is_tried_again_and_not_called_damaged(
    tmp_path: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    manager = server_manager.server_manager_instance
    start, calls = manager.start_and_get_uri, list[str]()

    def unreachable_at_first(path: str, args: Any = None) -> str | None:
        calls.append(path)
        return start(path, args) if len(calls) > failures else closed_port

    monkeypatch.setattr(manager, "start_and_get_uri", unreachable_at_first)
    monkeypatch.setattr(connection, "LITE_START_S", 1.0)
    config = configuration(str(tmp_path / "milvus.db"), retry_s=2.0)
    if failures == 1:
        with milvus.connected(config) as opened:
            assert not opened.call(opened.client.list_collections)
        return
    with pytest.raises(CollectionError, match="does not answer: connecting failed") as raised:
        milvus.connect(config)
    assert "move it away" not in str(raised.value)
    assert len(calls) > 1


@pytest.fixture
def lite_over_tcp(tmp_path: Path) -> Iterator[str]:
    server, database, port = start_server_in_thread(str(tmp_path / "over_tcp"))
    yield f"http://127.0.0.1:{port}"
    server.stop(grace=2).wait()
    database.close()


def test_lite_is_not_pinged(tmp_path: Path, lite_over_tcp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server ends a connection that pings: a call after a minute without one failed with "Too many pings"."""
    used = list[dict[str, Any]]()
    channel = grpc.insecure_channel

    def noted(address: str, options: Any, **more: Any) -> grpc.Channel:
        used.append(dict(options))
        return channel(address, options=options, **more)

    monkeypatch.setattr("pymilvus.client.grpc_handler.grpc.insecure_channel", noted)
    for uri in (str(tmp_path / "milvus.db"), lite_over_tcp):
        with milvus.connected(configuration(uri)) as opened:
            assert opened.is_lite
            assert used[-1]["grpc.keepalive_time_ms"] == 2**31 - 1


def test_lite_path_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "milvus.db"
    path.write_bytes(b"SQLite format 3\0")
    with pytest.raises(CollectionError, match=rf"{path} is a file; Milvus Lite keeps a folder"):
        milvus.connect(configuration(str(path)))
    assert path.read_bytes() == b"SQLite format 3\0"


def test_lite_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CollectionError, match=r"can't make the folder of .*/file/deeper/milvus.db: Not a directory"):
        milvus.connect(configuration(str(tmp_path / "file" / "deeper" / "milvus.db")))


def test_lite_folder_that_is_made(tmp_path: Path) -> None:
    config = configuration(str(tmp_path / "new" / "deeper" / "milvus.db"))
    with milvus.connected(config) as connection:
        assert connection.client.list_collections() == []
    milvus.release(config)


def test_lite_data_that_is_damaged(tmp_path: Path) -> None:
    config = configuration(str(tmp_path / "milvus.db"))
    with milvus.connected(config) as connection:
        milvus.create(connection, SPEC, "load-one")
    milvus.release(config)
    for path in (tmp_path / "milvus.db").rglob("*"):
        if path.is_file():
            path.write_bytes(b"garbage")

    def use() -> None:
        with milvus.connected(config) as connection:
            milvus.check_free(connection, SPEC)

    with pytest.raises(CollectionError, match=r"milvus\.db"):
        use()
    milvus.release(config)


def test_lite_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    with pytest.raises(CollectionError, match=r"milvus-lite is not installed. pip install 'vecbeam\[lite\]'"):
        milvus.connect(configuration(str(tmp_path / "milvus.db")))


def test_pymilvus_loads_when_it_is_first_used() -> None:
    code = "import sys, transforms.milvus; print([m for m in ('pymilvus', 'milvus_lite', 'grpc') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(milvus.__file__).parent.parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = done.stdout.strip()
    assert "pymilvus" not in loaded
    assert "milvus_lite" not in loaded
