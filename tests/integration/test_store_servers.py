"""Corpus and checkpoint on real servers of S3, Azure and GCS: sync, kills, two writers of one part, the lease."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from corpora import configure, text

from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import ConfigurationError, LockedError, VecbeamError
from tests.store_proxy import Fault, proxied
from tests.store_servers import SERVERS, ServerMissingError, StoreServer
from transforms import milvus
from transforms.checkpoint import lock
from transforms.support.storage import filesystem
from transforms.support.storage.remote import bucket_client, remote_file

ITEMS = 40
LARGE = 20_000_000
"""Bytes of a part that S3 and GCS take in several requests."""


@dataclass
class Store:
    """A server with an empty bucket, which this process's stores go to."""

    name: str
    server: StoreServer
    root: str


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, StoreServer]]:
    try:
        with SERVERS[request.param]() as found:
            yield request.param, found
    except ServerMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def store(server: tuple[str, StoreServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    name, found = server
    bucket = f"bucket-{time.time_ns()}"
    for variable in os.environ:
        if variable.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_")):
            monkeypatch.delenv(variable)
    for variable, value in found.environment.items():
        monkeypatch.setenv(variable, value)
    found.create(bucket)
    before = FileSystems._pipeline_options
    options = {key: value for key, value in found.runner.items() if key != "name"}
    FileSystems.set_options(PipelineOptions.from_dictionary(options))
    yield Store(name, found, f"{found.scheme}://{bucket}")
    FileSystems.set_options(before)


def corpus(store: Store, folder: Path, items: int = ITEMS) -> Config:
    """A configuration with so many texts, each a file in the bucket."""
    for number in range(items):
        filesystem.write_atomic(f"{store.root}/docs/{number:03d}.txt", text(number).encode())
    paths = [f"{store.root}/docs/*.txt"]
    return configure(folder, corpus={"paths": paths}, checkpoint=f"{store.root}/checkpoint", runner=store.server.runner)


def change_ten(store: Store) -> None:
    """Six texts change, two go, two come."""
    for number in (3, 9, 14, 20, 27, 33, ITEMS, ITEMS + 1):
        filesystem.write_atomic(f"{store.root}/docs/{number:03d}.txt", f"another {text(number)}".encode())
    filesystem.delete([f"{store.root}/docs/{number:03d}.txt" for number in (5, 6)])


def check_verified(config: Config) -> None:
    found = verify(config).verify
    assert found is not None
    assert (found.expected, found.found, found.missing, found.unexpected, found.stale) == (ITEMS, ITEMS, 0, 0, 0)


def test_a_sync_of_ten_changes(store: Store, tmp_path: Path) -> None:
    config = corpus(store, tmp_path)
    assert sync(config).items.new == ITEMS
    time.sleep(1.1)  # some stores' times are in seconds
    change_ten(store)
    report = sync(config)
    assert (report.items.changed, report.items.new, report.items.deleted, report.items.unchanged) == (6, 2, 2, 32)
    assert (report.chunks.embedded, report.chunks.loaded, report.retries) == (8, 8, 0)
    check_verified(config)
    again = sync(config)
    assert (again.chunks.embedded, again.chunks.loaded, again.items.unchanged) == (0, 0, ITEMS)
    milvus.release(config.collection)


# A part of a run that is killed: before the store has it, and before the run knows that the store has it.
@pytest.mark.parametrize("store_has_it", [False, True])
def test_the_same_command_after_a_kill(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_has_it: bool
) -> None:
    if os.environ.get("VECBEAM_STORES") != "all" and (store.name, store_has_it) != ("seaweedfs", False):
        pytest.skip("VECBEAM_STORES=all runs it: a run in a process of its own takes seconds")
    config = corpus(store, tmp_path)
    killed: list[subprocess.Popen[str]] = []
    reached = threading.Event()

    def kill() -> None:
        killed[0].kill()
        reached.set()

    with proxied(store.server.address) as proxy:
        # An upload to GCS names its object in the body or in the query.
        method, path = ("POST", "/upload/.*") if store.server.scheme == "gs" else ("PUT", "/parts/")
        passing = 5 if store.server.scheme == "gs" else 0
        proxy.faults.append(Fault(method, path, 503, after=passing, forwarded=store_has_it, before=kill))
        configuration = (tmp_path / "vecbeam.yaml").read_text().replace(store.server.address, proxy.address)
        (tmp_path / "killed.yaml").write_text(configuration)
        environment = store.server.environ()
        through = {name: value.replace(store.server.address, proxy.address) for name, value in environment.items()}
        line = [sys.executable, "-m", "pipelines.entry", "sync", str(tmp_path / "killed.yaml"), "--quiet"]
        killed.append(subprocess.Popen(line, env=through, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        shown, _ = killed[0].communicate(timeout=300)
        assert reached.is_set(), shown
        assert killed[0].returncode == -signal.SIGKILL
    # The lease of a killed run ends at once on this machine.
    report = sync(config)
    assert report.items.new + report.items.unchanged == ITEMS
    assert report.chunks.embedded == (0 if store_has_it and store.server.scheme != "gs" else ITEMS)
    check_verified(config)
    parts = filesystem.list_files(f"{store.root}/checkpoint", "**/parts/*.parquet")
    assert len(parts) == 1
    milvus.release(config.collection)


LOST = {"s3": (400, "ExpiredToken"), "az": (403, "AuthenticationFailed"), "gs": (401, "AuthenticationRequired")}
"""What each store answers once a token, a signature or a key has expired."""


def test_credentials_that_are_lost_in_the_middle_of_a_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, status_and_code = 5, LOST[store.server.scheme]
    config = corpus(store, tmp_path, items)
    with proxied(store.server.address) as proxy:
        for variable, value in store.server.environment.items():
            monkeypatch.setenv(variable, value.replace(store.server.address, proxy.address))
        runner = {key: value.replace(store.server.address, proxy.address) for key, value in store.server.runner.items()}
        config = configure(
            tmp_path,
            corpus={"paths": [f"{store.root}/docs/*.txt"]},
            checkpoint=f"{store.root}/checkpoint",
            runner=runner,
        )

        def lost() -> None:
            """From here on the store refuses every write: the part, the report, the release of the lease."""
            for method in ("PUT", "POST", "DELETE"):
                proxy.faults.append(Fault(method, ".", status_and_code[0], times=10_000, code=status_and_code[1]))

        # The first table of digests that is written with a part.
        proxy.faults.append(Fault("PUT", "/items/|items%2F", status_and_code[0], before=lost, code=status_and_code[1]))
        with pytest.raises(VecbeamError) as error:
            sync(config)
        # Google's client asks for a new token first, which an emulator's credentials do not have.
        said = "refreshed" if store.server.scheme == "gs" else status_and_code[1]
        assert said in error.value.message
        assert "check the credentials of this machine and of the workers" in error.value.remedy
        proxy.faults.clear()
        gc.collect()  # Python closes what nobody closed
        assert filesystem.list_files(f"{store.root}/checkpoint", "**/parts/*") == []
        assert filesystem.list_files(f"{store.root}/checkpoint", "**/snapshots/*") == []
        report = sync(config)
        assert (report.items.new, report.chunks.loaded) == (items, items)
        milvus.release(config.collection)


class Torn(io.BytesIO):
    """A file whose disk fails after nine MiB."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 9 << 20:
            raise OSError(errno.EIO, "the disk failed")
        return super().read(min(size or 1 << 20, 1 << 20) if size != -1 else 9 << 20)


def test_a_write_that_failed_is_not_published_later(store: Store) -> None:
    uri = f"{store.root}/torn.bin"
    with pytest.raises(VecbeamError, match="the disk failed"):
        remote_file.write(uri, Torn(bytes(20 << 20)))
    gc.collect()
    assert not filesystem.exists(uri)
    assert filesystem.list_files(store.root, "**") == []


def upload(store: Store, data: bytes, address: str) -> subprocess.Popen[bytes]:
    """A process that writes an object; of GCS it kills itself before the second piece."""
    program = (
        "import os, sys\n"
        "from transforms.support.storage import filesystem\n"
        "data = sys.stdin.buffer.read()\n"
        "if sys.argv[1].startswith('gs'):\n"
        "    import http.client\n"
        "    real, pieces = http.client.HTTPConnection.putrequest, []\n"
        "    def putrequest(self, method, *args, **kwargs):\n"
        "        pieces.extend([1] * (method == 'PUT'))\n"
        "        if len(pieces) > 1: os.kill(os.getpid(), 9)\n"
        "        return real(self, method, *args, **kwargs)\n"
        "    http.client.HTTPConnection.putrequest = putrequest\n"
        "filesystem.write_stream(sys.argv[1], lambda stream: stream.write(data) and None)\n"
    )
    environment = {name: value.replace(store.server.address, address) for name, value in store.server.environ().items()}
    if store.server.scheme == "s3":
        environment |= {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
    line = [sys.executable, "-c", program, f"{store.root}/parts/one.parquet"]
    return subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_part_is_whole_or_absent_if_its_upload_is_killed(store: Store) -> None:
    uri, data = f"{store.root}/parts/one.parquet", random.Random(1).randbytes(LARGE)
    with proxied(store.server.address) as proxy:
        address = store.server.address if store.server.scheme == "gs" else proxy.address
        process = upload(store, data, address)
        # Before the request that ends S3's upload, and before Azure has the blob; see `upload` for GCS.
        last = ("POST", "uploadId") if store.server.scheme == "s3" else ("PUT", "/parts/")
        proxy.faults.append(Fault(*last, 503, before=process.kill))
        _, shown = process.communicate(data, timeout=120)
        assert process.returncode == -signal.SIGKILL, shown.decode()
        if store.server.scheme == "s3":
            assert proxy.count("PUT", "partNumber") > 1  # S3 had its bytes
    assert not filesystem.exists(uri)
    assert filesystem.list_files(store.root, "**") == []
    filesystem.write_stream(uri, lambda stream: stream.write(data) and None)
    assert [(file.uri, file.size) for file in filesystem.list_files(store.root, "**")] == [(uri, LARGE)]


def at_once(*functions: Callable[[], object]) -> list[BaseException]:
    """Runs functions at the same time; returns what they raised."""
    raised: list[BaseException] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_two_workers_write_one_part_at_once(store: Store) -> None:
    uri, data = f"{store.root}/parts/one.parquet", random.Random(2).randbytes(LARGE)
    written, sizes = threading.Event(), set()

    def write() -> None:
        filesystem.write_stream(uri, lambda stream: stream.write(data) and None)

    def look() -> None:
        while not written.is_set():
            found = filesystem.find(uri)
            sizes.add(found.size if found is not None else 0)
            written.wait(0.02)

    looking = threading.Thread(target=look)
    looking.start()
    raised = at_once(write, write)
    written.set()
    looking.join()
    assert raised == []
    assert sizes <= {0, LARGE}
    assert filesystem.read_bytes(uri) == data
    assert len(filesystem.list_files(store.root, "**")) == 1


def test_of_two_runs_that_start_at_once_one_has_the_lease(store: Store) -> None:
    held: list[str] = []
    for turn in range(3):
        both = threading.Barrier(2)

        def run(name: str, both: threading.Barrier = both, turn: int = turn) -> None:
            both.wait()
            try:
                with lock.held(f"{store.root}/turn-{turn}", name):
                    held.append(name)
                    both.wait(30)
            except LockedError:
                both.wait(30)

        assert at_once(lambda: run("one"), lambda: run("two")) == []
        assert len(held) == turn + 1
    conditional = _conditional(store)
    assert conditional == (store.name != "gcp-storage-emulator")


def _conditional(store: Store) -> bool:
    """Whether the store refuses a write whose condition does not hold: without that a lease rests on a wait."""
    filesystem.write_if(f"{store.root}/once", b"1", None)
    try:
        filesystem.write_if(f"{store.root}/once", b"2", None)
    except filesystem.ConditionError:
        return True
    return False


def test_a_renewed_lease_is_its_holders_alone(store: Store) -> None:
    root = f"{store.root}/renewed"
    with lock.held(root, "mine") as hold:
        hold.renew()
        hold.renew()
        assert json.loads(filesystem.read_bytes(hold.uri))["renewals"] == 2
        with pytest.raises(LockedError, match="held by run mine"), lock.held(root, "other"):
            pass
    assert not filesystem.exists(f"{root}/runs/lock.json")


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("s3a://corpus/docs/*.txt", "s3://BUCKET/"),
        ("gcs://corpus/docs/*.txt", "gs://BUCKET/"),
        ("wasbs://corpus@acme.blob.core.windows.net/docs/*.txt", "az://CONTAINER/"),
    ],
)
def test_other_programs_spellings_are_refused_with_the_right_one(uri: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=f"is not a valid scheme.*write {remedy}"):
        bucket_client.check(uri)
