"""A store that answers with errors: what passes is tried again and counted, what does not is named at once."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from corpora import configure

from pipelines.sync import sync
from schemas.config import Corpus
from schemas.errors import CheckpointError, CorpusError, InterruptedRunError, LockedError, StorageError, VecbeamError
from tests.store_proxy import Fault, StoreProxy, proxied
from transforms import milvus
from transforms.checkpoint import lock
from transforms.read import list_corpus
from transforms.support import metrics, stop
from transforms.support.storage import filesystem
from transforms.support.storage.remote import bucket_client, connection_options, object_store

ROOT = "s3://answers"
KEYS = 2500
FOREIGN = {"run_id": "far", "host": "far-away", "process": 1, "since": "yesterday"}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A client of an S3 server with one bucket, in which `many/` has `KEYS` objects."""
    boto3 = pytest.importorskip("boto3", reason="pip install 'vecbeam[test]'")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    client.create_bucket(Bucket="answers")
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["global"]
    for number in range(KEYS):
        backend.put_object("answers", f"many/{number:05d}.txt", b"x")
    yield client
    moto.stop()


@pytest.fixture
def proxy(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreProxy]:
    """A proxy before that server, which this process's stores go through."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    before = FileSystems._pipeline_options
    with proxied(server.meta.endpoint_url) as found:
        options = {"s3_endpoint_url": found.address, "s3_region_name": "us-east-1"}
        FileSystems.set_options(PipelineOptions.from_dictionary(options))
        yield found
    FileSystems.set_options(before)


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was counted."""
    counted: list[str] = []
    monkeypatch.setattr(metrics, "count", lambda name, _: counted.append(name))
    return counted


@pytest.mark.parametrize("status", [429, 503])
def test_a_store_that_asks_for_patience_gets_it(proxy: StoreProxy, retries: list[str], status: int) -> None:
    proxy.faults += [Fault("PUT", "/a/b", status, times=2), Fault("GET", "/a/b", status), Fault("HEAD", "/a/b", status)]
    filesystem.write_atomic(f"{ROOT}/a/b", b"content")
    assert filesystem.read_bytes(f"{ROOT}/a/b") == b"content"
    assert filesystem.exists(f"{ROOT}/a/b")
    assert retries == ["retries"] * 4


def test_an_answer_that_breaks_off_is_asked_for_again(proxy: StoreProxy, retries: list[str]) -> None:
    filesystem.write_atomic(f"{ROOT}/long", b"0123456789" * 99999)
    proxy.faults.append(Fault("GET", "/long", 0, after=1))
    assert filesystem.read_bytes(f"{ROOT}/long") == b"0123456789" * 99999
    assert retries == ["retries"]


def test_what_does_not_pass_is_raised_at_once(proxy: StoreProxy, retries: list[str]) -> None:
    proxy.faults.append(Fault("PUT", "/denied", 403))
    with pytest.raises(CheckpointError, match=r"403 Forbidden \(AccessDenied\): from the test.* the right to write"):
        filesystem.write_atomic(f"{ROOT}/denied", b"")
    assert (retries, proxy.count("PUT", "/denied")) == ([], 1)


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, "ExpiredToken", "check the credentials .* expired"),
        (403, "InvalidAccessKeyId", "check the credentials"),
        (403, "RequestTimeTooSkewed", "set the clock of this machine"),
        (400, "AuthorizationHeaderMalformed", "set runner.s3_region_name or AWS_DEFAULT_REGION"),
        (301, "PermanentRedirect", "set runner.s3_region_name or AWS_DEFAULT_REGION"),
        (404, "NoSuchBucket", "check the bucket's name"),
    ],
)
def test_each_refusal_has_its_remedy(
    proxy: StoreProxy, retries: list[str], status: int, code: str, remedy: str
) -> None:
    proxy.faults.append(Fault("PUT", "/refused", status, code=code))
    with pytest.raises(CheckpointError, match=rf"can't write {ROOT}/refused: .*\({code}\).*\. {remedy}"):
        filesystem.write_atomic(f"{ROOT}/refused", b"content")
    assert (retries, proxy.count("PUT", "/refused")) == ([], 1)


def test_a_store_that_refuses_a_key_says_so_whatever_is_asked(proxy: StoreProxy) -> None:
    filesystem.write_atomic(f"{ROOT}/known", b"content")
    proxy.refuses = lambda: True
    for ask in (filesystem.read_bytes, lambda uri: filesystem.list_files(uri, "*")):
        with pytest.raises(StorageError, match=r"403 Forbidden \(InvalidAccessKeyId\)") as refused:
            ask(f"{ROOT}/known")
        assert refused.value.remedy.startswith("check the credentials")
    # An answer to a HEAD has no reason.
    with pytest.raises(StorageError, match=r"can't look for \S+/known: 403 Forbidden, without a reason\.") as refused:
        filesystem.exists(f"{ROOT}/known")
    assert refused.value.remedy.endswith(
        "the right to read there; if it has the right, check the credentials and the clocks"
    )


def test_a_slow_answer_is_awaited_so_long_and_then_asked_for_again(
    proxy: StoreProxy, retries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem.write_atomic(f"{ROOT}/slow", b"content")
    monkeypatch.setattr(connection_options, "REQUEST_S", 2)
    monkeypatch.setenv("AWS_TEST_NAME", "another client")
    proxy.faults.append(Fault("GET", "/slow", 200, delay_s=4.0))
    assert filesystem.read_bytes(f"{ROOT}/slow") == b"content"
    assert (retries, proxy.count("GET", "/slow")) == (["retries"], 2)


def test_options_that_say_the_same_have_one_client(proxy: StoreProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = bucket_client.s3_store
    monkeypatch.setattr(
        bucket_client, "s3_store", lambda address, *_: (made.append(address.root), real(address, *_))[1]
    )
    options = {"s3_endpoint_url": proxy.address, "s3_region_name": "us-east-1"}
    for job in ("first", "second"):  # each pipeline of a run has its own
        FileSystems.set_options(PipelineOptions.from_dictionary({**options, "job_name": job}))
        assert not filesystem.exists(f"{ROOT}/nothing")
    assert made == [f"{ROOT}/"]
    FileSystems.set_options(PipelineOptions.from_dictionary({**options, "s3_session_token": "another"}))
    assert not filesystem.exists(f"{ROOT}/nothing")
    assert len(made) == 2


def test_a_run_reads_what_never_changes_once(proxy: StoreProxy) -> None:
    root = f"{ROOT}/kept"
    part, own = f"{root}/space/parts/a.parquet", f"{root}/runs/one/a.parquet"
    with lock.held(root, "one"):
        filesystem.write_atomic(part, b"part")
        filesystem.write_atomic(own, b"own")
        for _ in range(3):
            assert filesystem.read_bytes(part) == b"part"
            assert filesystem.read_bytes(own) == b"own"
            assert filesystem.exists(part)
            assert filesystem.list_files(f"{root}/snapshots", "*.parquet") == []
        assert [proxy.count("GET", "a.parquet"), proxy.count("HEAD", "a.parquet")] == [1, 0]
        assert proxy.count("GET", "list-type.*snapshots") == 1
        filesystem.write_atomic(own, b"again")
        assert filesystem.read_bytes(own) == b"again"
        filesystem.write_atomic(f"{root}/snapshots/1.parquet", b"")
        assert len(filesystem.list_files(f"{root}/snapshots", "*.parquet")) == 1
        filesystem.delete([part, f"{root}/snapshots/1.parquet"])
        assert not filesystem.exists(part)
        with pytest.raises(FileNotFoundError):
            filesystem.read_bytes(part)
        assert filesystem.list_files(f"{root}/snapshots", "*.parquet") == []
    filesystem.write_atomic(part, b"part")
    before = proxy.count("GET", "a.parquet")
    assert [filesystem.read_bytes(part) for _ in range(2)] == [b"part"] * 2
    assert proxy.count("GET", "a.parquet") == before + 2


def test_credentials_that_expire_in_the_middle_of_a_run(proxy: StoreProxy, tmp_path: Path) -> None:
    for number in range(5):
        filesystem.write_atomic(f"{ROOT}/expiring/{number}.txt", f"text {number}".encode())
    runner = {"name": "local", "s3_endpoint_url": proxy.address, "s3_region_name": "us-east-1"}
    config = configure(
        tmp_path, corpus={"paths": [f"{ROOT}/expiring/*.txt"]}, checkpoint=f"{ROOT}/expired", runner=runner
    )
    # From the first file of items on, every write is refused: the part, the report, the release of the lease.
    faults = [Fault("PUT", ".", 400, times=10_000), Fault("POST", ".", 400, times=10_000)]
    proxy.faults.append(Fault("PUT", "/items/", 400, before=lambda: proxy.faults.extend(faults)))
    with pytest.raises(VecbeamError) as lost:
        sync(config)
    # The first refusal counts, not that of the report or of the lease.
    assert re.search(r"can't write s3://\S+/items/.+ExpiredToken", lost.value.message)
    assert "check the credentials of this machine and of the workers" in lost.value.remedy
    proxy.faults.clear()
    assert filesystem.list_files(f"{ROOT}/expired", "**/parts/*") == []
    assert filesystem.list_files(f"{ROOT}/expired", "**/snapshots/*") == []
    report = sync(config)
    assert (report.items.new, report.chunks.loaded) == (5, 5)
    milvus.release(config.collection)


def test_patience_has_an_end(proxy: StoreProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "PATIENCE_S", 1.0)
    proxy.faults.append(Fault("GET", "/busy", 503, times=1000))
    with pytest.raises(
        StorageError, match=r"can't open s3://answers/busy: 503 .*\(SlowDown\).* once the store answers"
    ):
        filesystem.read_bytes(f"{ROOT}/busy")


def test_ctrl_c_ends_the_wait(proxy: StoreProxy) -> None:
    proxy.faults.append(Fault("GET", "/busy", 503, times=1000))
    threading.Timer(1.0, stop.request_stop).start()
    try:
        with pytest.raises(InterruptedRunError):
            filesystem.read_bytes(f"{ROOT}/busy")
    finally:
        stop.reset()


def test_a_listing_goes_on_where_it_broke_off(proxy: StoreProxy, retries: list[str]) -> None:
    proxy.faults += [Fault("GET", "list-type", 503, after=1), Fault("GET", "list-type", 0)]
    found = filesystem.list_files(f"{ROOT}/many", "*.txt")
    assert [file.uri for file in found] == [f"{ROOT}/many/{number:05d}.txt" for number in range(KEYS)]
    assert retries == ["retries"] * 2


def test_a_listing_that_cannot_go_on_is_no_shorter_corpus(proxy: StoreProxy) -> None:
    proxy.faults.append(Fault("GET", "list-type", 403, after=1, times=1000))
    with pytest.raises(CorpusError, match="AccessDenied"):
        list_corpus(Corpus(paths=[f"{ROOT}/many/*.txt"]))


def test_a_file_that_changes_while_it_is_read_is_not_mixed(proxy: StoreProxy) -> None:
    filesystem.write_atomic(f"{ROOT}/changing", b"a" * 3_000_000)
    with filesystem.open_binary(f"{ROOT}/changing") as stream:
        assert stream.read(10) == b"a" * 10
        filesystem.write_atomic(f"{ROOT}/changing", b"b" * 3_000_000)
        with pytest.raises(OSError, match="written again while it was read"):
            stream.read()


def test_a_lease_that_another_run_writes_first_is_refused(proxy: StoreProxy, server: Any) -> None:
    def other() -> None:
        server.put_object(Bucket="answers", Key="one/runs/lock.json", Body=json.dumps(FOREIGN).encode())

    proxy.faults.append(Fault("PUT", "one/runs/lock.json", 412, before=other))
    with (
        pytest.raises(LockedError, match=r"held by run far \(process 1 on far-away\)"),
        lock.held(f"{ROOT}/one", "mine"),
    ):
        pass
    assert json.loads(filesystem.read_bytes(f"{ROOT}/one/runs/lock.json")) == FOREIGN


def test_a_lease_whose_answer_got_lost_is_held(proxy: StoreProxy, retries: list[str]) -> None:
    proxy.faults.append(Fault("PUT", "two/runs/lock.json", 503, forwarded=True))
    with lock.held(f"{ROOT}/two", "mine") as hold:
        proxy.faults.append(Fault("PUT", "two/runs/lock.json", 503, forwarded=True))
        hold.renew()
        assert json.loads(filesystem.read_bytes(hold.uri))["run_id"] == "mine"
    assert not filesystem.exists(f"{ROOT}/two/runs/lock.json")
    assert retries == ["retries"] * 2
