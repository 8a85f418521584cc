"""Fixtures that several test files share, and how workers share the tests (`pytest -n 2`)."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from milvus_server import NamespaceError, Server, start_server

from pipelines.run.jobs import beam_classes
from transforms.encoders.engines.torch.torchvision_operators import make_importable

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:
    # Before torch is imported, here and in what tests start: two workers with two threads each would wait for cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and the commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests import libraries that import torchvision, as vecbeam does, and compare with them.
make_importable()

ALONE = "alone"
"""Group of the files whose tests stop processes in time or measure memory: never two of them at once."""
ALONE_FILES = ("test_ctrl_c", "test_stops", "test_memory")
SERVER = "server"
"""Group of the files that use the real Milvus server: one worker starts it, as an idle one takes a fifth of a core."""
SERVER_FILES = (
    *(
        "test_index_choice",
        "test_capabilities",
        "test_collection_checking",
        "test_collection_indexing",
        "test_collection_loading",
    ),
    *("test_collection_recall", "test_collection_structure", "test_cranfield", "test_fields", "test_import"),
    *("test_milvus_faults", "test_search_during_reindex", "test_sigkill_server", "test_sync_machine", "test_vectors"),
    *("test_verify", "test_worker_checks", "test_writers", "test_status_on_server", "test_load_and_verify"),
)
LONGEST = (
    *("test_cranfield", "test_sigkill_sync", "test_sigkill", "test_engines", "test_sync_repairs", "test_backfill"),
    *("test_sync", "test_remedies", "test_cases", "test_index", "test_known_items"),
)
"""Files that come first, so that at the end no worker waits for one of them; longest first."""

WRITES = (
    *("insert", "upsert", "delete", "flush", "create_collection", "drop_collection", "create_index", "drop_index"),
    *("create_alias", "alter_alias", "drop_alias", "alter_collection_properties", "rename_collection"),
)
"""Methods of pymilvus's client that change what Milvus has."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; where there is one worker, it changes nothing else."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file stay together and in their order: what it sets up once is set up in one worker.

    As `--dist loadfile`, with a group of files; `--dist loadgroup` of xdist 3.8 groups nothing under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            name = Path(nodeid.split("::", 1)[0]).stem
            return ALONE if name in ALONE_FILES else SERVER if name in SERVER_FILES else name

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What this session keeps: converted models, of its processes too, and what Beam found out about classes.

    Workers share converted models, as processes of one machine do.
    """
    base = tmp_path_factory.getbasetemp()
    os.environ["VECBEAM_CACHE"] = str((base.parent if IS_WORKER else base) / "cache")
    beam_classes.remember()


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A command that a test runs in this process sets the level of vecbeam's log: not for the tests after it."""
    log = logging.getLogger("vecbeam")
    before = log.level
    yield
    log.setLevel(before)


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    """A corpus of 40 items in two files; its records."""
    from corpora import text, write_two

    found = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    write_two(tmp_path, found)
    return found


@pytest.fixture
def lite_released(tmp_path: Path) -> Iterator[None]:
    """Stops the Milvus Lite of `milvus.db` in the folder of the test, after it."""
    yield
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(tmp_path / "milvus.db"))


@pytest.fixture
def init_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs in the test's folder, and stops Milvus Lite where configurations of `vecbeam init` put it."""
    from milvus_lite.server_manager import server_manager_instance

    monkeypatch.chdir(tmp_path)
    yield
    for path in (tmp_path / "milvus.db", tmp_path / "corpus" / ".vecbeam" / "milvus.db"):
        server_manager_instance.release_server(str(path))


@pytest.fixture
def milvus_writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the writing calls that Milvus got in the test; a test may clear them."""
    import pymilvus

    calls: list[str] = []
    for name in WRITES:
        method = getattr(pymilvus.MilvusClient, name)

        def noted(*args: Any, name: str = name, method: Any = method, **kwargs: Any) -> Any:
            calls.append(name)
            return method(*args, **kwargs)

        monkeypatch.setattr(pymilvus.MilvusClient, name, noted)
    return calls


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real Milvus server of the test extra, for all tests of a worker; seen on 127.0.0.1 alone."""
    pytest.importorskip("milvus", reason="the real server comes with the test extra: pip install milvus==2.3.5")
    try:
        server = start_server(tmp_path_factory.mktemp("milvus"))
    except NamespaceError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def job_service() -> Iterator[tuple[Any, str]]:
    """Beam's own job server in this process (`LocalJobServicer`), and its address."""
    from job_server_here import job_server

    with job_server() as found:
        yield found


@pytest.fixture(scope="module")
def lite_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Milvus Lite that answers several processes."""
    from job_server_here import lite_server

    with lite_server(tmp_path_factory.mktemp("lite")) as uri:
        yield uri


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server of this process."""
    pytest.importorskip("boto3", reason="pip install 'vecbeam[test]'")
    moto = pytest.importorskip("moto.server", reason="the S3 server comes with the test extra")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """A client of that server by the environment's variables, and the name of an empty bucket of the test."""
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    client, bucket = boto3.client("s3"), f"bucket-{abs(hash(tmp_path))}"
    client.create_bucket(Bucket=bucket)
    return client, bucket


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.server)])
def milvus_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty Milvus: Lite in a folder of the test, then the real server."""
    if request.param == "lite":
        path = tmp_path / "milvus.db"
        yield str(path)
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(path))
        return
    server: Server = request.getfixturevalue("milvus_server")
    empty(server.uri)
    yield server.uri
    empty(server.uri)


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.server)])
def shared_uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty Milvus that answers several processes: Lite, then the real server."""
    lite = request.param == "lite"
    uri: str = request.getfixturevalue("lite_uri") if lite else request.getfixturevalue("milvus_server").uri
    empty(uri)
    yield uri
    empty(uri)


def empty(uri: str) -> None:
    """Drops all collections and aliases of a server."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri, dedicated=True)
    for name in client.list_collections():
        for alias in client.list_aliases(name)["aliases"]:
            client.drop_alias(alias)
        client.drop_collection(name)
    client.close()
