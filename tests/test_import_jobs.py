"""Import jobs against a server of Zilliz Cloud's documented API: grouped, found again, and none of them twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collection_data import configuration
from corpora import configure
from snapshots import SPACE_ID
from zilliz_server import ACCESS, CLUSTER, KEY, SECRET, ZillizServer, zilliz_server

from schemas.config import Collection
from schemas.errors import CollectionError, ConfigurationError
from transforms.checkpoint import Checkpoint
from transforms.load import import_jobs
from transforms.load.import_jobs import JobLedger, PartFile, PartsImport, UnknownImportError, await_imports
from transforms.load.upsert_parts import Ledger
from transforms.milvus.rows.zilliz_import import ZillizImport, check_keys, object_url
from transforms.support import metrics

NAME = "docs_1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZILLIZ_API_KEY", KEY)
    monkeypatch.setenv("ZILLIZ_STORAGE_ACCESS_KEY", ACCESS)
    monkeypatch.setenv("ZILLIZ_STORAGE_SECRET_KEY", SECRET)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)
    monkeypatch.setattr(import_jobs, "POLL_S", 0.01)
    monkeypatch.setattr(import_jobs, "LONGEST_POLL_S", 0.02)
    monkeypatch.setattr(import_jobs, "SETTLE_S", 0.05)


class World:
    """A collection at Zilliz Cloud; `held` counts how often each file was imported into it."""

    def __init__(self, folder: Path, server: ZillizServer) -> None:
        self.server, self.held, self.notes = server, Counter[str](), list[str]()
        self.ledger = Ledger(Checkpoint(str(folder), "docs", SPACE_ID), NAME, "load-one")
        self.finished: list[str] = []
        server.imports = self._hold

    def _hold(self, files: list[str]) -> int:
        self.held.update(files)
        return len(files)

    def settings(self, **zilliz: Any) -> Collection:
        place = zilliz or {"cluster_id": CLUSTER}
        return configuration(
            "http://milvus.example:19530", load="import", zilliz={"endpoint": self.server.uri, **place}, retry_s=3.0
        )

    def run(self, parts: list[PartFile], settings: Collection | None = None) -> Counter[str]:
        """What a command does; returns what it counted."""
        service = ZillizImport(settings or self.settings(), NAME)
        with metrics.set_aside() as counted:
            done = PartsImport(service, self.ledger, lambda part: self.finished.append(part.name), self.notes.append)
            done.run(parts)
        return counted

    def check_once(self, parts: list[PartFile]) -> None:
        assert self.held == Counter(part.uri for part in parts)
        assert self.ledger.acknowledged() == {part.name for part in parts}
        assert not JobLedger(self.ledger).open_jobs()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with zilliz_server() as server:
        yield World(tmp_path, server)


def parts_of(number: int) -> list[PartFile]:
    names = [f"docs-{n:05d}.parquet" for n in range(number)]
    return [PartFile(name, f"s3://bucket/docs/parts/{name}", 10) for name in names]


def test_a_job_has_up_to_a_thousand_files(world: World) -> None:
    parts = parts_of(1100)
    world.run(parts)
    world.check_once(parts)
    first, second = world.server.made("create")
    assert [len(body["objectUrls"]) for body in (first, second)] == [1000, 100]
    assert first["objectUrls"][0] == ["s3://bucket/docs/parts/docs-00000.parquet"]
    assert first.keys() == {"clusterId", "collectionName", "objectUrls", "accessKey", "secretKey"}
    keys = [headers["idempotency-key"] for name, _, headers in world.server.requests if name == "create"]
    assert len(set(keys)) == 2
    assert all(len(key) <= 256 and key.isascii() for key in keys)  # the limit that Milvus documents
    assert world.finished == [part.name for part in parts]
    assert world.notes == ["import job job-0000: 1000 parts", "import job job-0001: 100 parts"]
    # The same command again: nothing.
    before = len(world.server.made("create"))
    world.run(parts)
    assert len(world.server.made("create")) == before


@pytest.mark.parametrize("fault", ["lost", "half"])
@pytest.mark.parametrize("knows_keys", [False, True])
def test_a_lost_answer_imports_nothing_twice(world: World, fault: str, knows_keys: bool) -> None:
    world.server.knows_keys = knows_keys
    world.server.faults.append(("create", fault))
    parts = parts_of(7)
    world.run(parts)
    world.check_once(parts)
    assert len(world.server.jobs) == 1


def test_an_error_of_the_service_that_began_no_job_is_tried_again(world: World) -> None:
    world.server.faults += [("create", 500), ("create", 503)]
    parts = parts_of(3)
    world.run(parts)
    world.check_once(parts)
    world.server.faults += [("create", 500)] * import_jobs.ATTEMPTS
    more = parts_of(5)
    with pytest.raises(CollectionError, match=r"did not answer whether it began an import: status 500.*same command"):
        world.run(more)
    world.run(more)
    world.check_once(more)


@pytest.mark.parametrize("writes", [1, 2])
def test_a_run_killed_around_the_creation_of_a_job(world: World, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Before its id is noted, and right after: the next run finds the job, and creates no other."""
    parts = parts_of(4)
    write, calls = JobLedger.write, [0]

    def killed(self: JobLedger, job: Any) -> None:
        calls[0] += 1
        if calls[0] == 2 and writes == 1:
            raise KeyboardInterrupt
        write(self, job)
        if calls[0] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(JobLedger, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            world.run(parts)
    assert world.ledger.import_broke_off
    world.run(parts)
    world.check_once(parts)
    assert len(world.server.jobs) == 1
    assert any("of an earlier run" in note for note in world.notes)


def test_a_run_killed_before_its_request_left_begins_the_job(world: World) -> None:
    parts = parts_of(4)
    names = tuple(part.name for part in parts)
    JobLedger(world.ledger).write(import_jobs.BegunJob(1, names, ()))
    world.run(parts)
    world.check_once(parts)


def test_jobs_of_others_under_the_same_name(world: World) -> None:
    """Jobs of a collection that was dropped since are still listed under its name; 150 of them are two pages."""
    for _ in range(150):
        world.server._create(
            {"collectionName": NAME, "objectUrls": [["s3://x"]], "accessKey": ACCESS, "secretKey": SECRET}, {}
        )
    for job in world.server.jobs.values():
        job.state = "Completed"
    parts = parts_of(2)
    world.server.faults.append(("create", "lost"))
    world.run(parts)
    world.check_once(parts)

    # Two that came since: nobody can tell which of them is ours.
    names = tuple(part.name for part in parts_of(4)[2:])
    JobLedger(world.ledger).write(import_jobs.BegunJob(9, names, tuple(list(world.server.jobs)[:-2])))
    with pytest.raises(UnknownImportError, match="2 import jobs have begun"):
        world.run(parts_of(4))


def test_a_full_queue_is_waited_for_and_counted(world: World) -> None:
    world.server.faults += [("create", "full"), ("create", 429), ("create", "full")]
    parts = parts_of(2)
    counted = world.run(parts)
    world.check_once(parts)
    assert counted["throttled"] == 3
    world.server.faults += [("list", 429), ("list", 500), ("describe", 502), ("describe", "half"), ("describe", 429)]
    counted = world.run(parts_of(3))
    assert counted["retries"] >= 4
    world.check_once(parts_of(3))


def test_no_more_jobs_at_once_than_allowed(world: World) -> None:
    service = ZillizImport(world.settings(), NAME)
    service.files_per_job, service.jobs_at_once = 2, 3
    world.server.polls = 3
    most = [0]
    create = service.create

    def created(files: Any, key: str) -> str:
        job = create(files, key)
        most[0] = max(most[0], sum(one.state not in ("Completed", "Failed") for one in world.server.jobs.values()))
        return job

    service.create = created  # type: ignore[method-assign]
    parts = parts_of(20)
    PartsImport(service, world.ledger, lambda _: None).run(parts)
    world.check_once(parts)
    assert (most[0], len(world.server.jobs)) == (3, 10)


def test_a_job_that_fails_names_its_parts_and_reason_and_no_key(world: World) -> None:
    def broken(files: list[str]) -> int:
        raise PermissionError(13, f"access denied for {ACCESS}", files[3])

    world.server.imports = broken
    with pytest.raises(CollectionError) as failed:
        world.run(parts_of(5))
    said = str(failed.value)
    assert "can't import docs-00003.parquet: it can't read them:" in said
    assert "access denied for ***" in said
    assert "job-0000" in said
    assert "ZILLIZ_STORAGE_ACCESS_KEY" in said
    # It is not known what the failed job left behind, so the collection is made from scratch.
    with pytest.raises(UnknownImportError, match="job-0000 of an earlier run failed"):
        world.run(parts_of(5))
    await_imports(ZillizImport(world.settings(), NAME), NAME)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ZILLIZ_API_KEY", "another-key-9876", r"The apikey is illegal.*an API key that may import.*ZILLIZ_API_KEY"),
        ("ZILLIZ_STORAGE_SECRET_KEY", "another-secret-9876", "access denied.*ZILLIZ_STORAGE_ACCESS_KEY and ZILLIZ_ST"),
    ],
)
def test_keys_that_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(CollectionError, match=said) as refused:
        world.run(parts_of(2))
    assert not any(secret in str(refused.value) for secret in (KEY, ACCESS, SECRET, value))
    assert not JobLedger(world.ledger).open_jobs()  # no job was created


def test_a_cluster_that_is_not_there_and_a_project_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CollectionError, match=r"Cluster not exist: in01-unknown.*correct cluster_id"):
        world.run(parts_of(1), world.settings(cluster_id="in01-unknown"))
    monkeypatch.setenv("ZILLIZ_STORAGE_TOKEN", "short-term")
    settings = world.settings(project_id="proj-0123", region_id="aws-us-west-2").model_copy(update={"database": "shop"})
    world.server.spelling, world.server.as_list = "jobID", True  # as the page of the reference has it
    world.run(parts_of(1), settings)
    world.check_once(parts_of(1))
    body = world.server.made("create")[-1]
    assert (body["projectId"], body["regionId"], body["dbName"]) == ("proj-0123", "aws-us-west-2", "shop")
    assert body["token"] == "short-term"


def test_no_secret_is_written(world: World, tmp_path: Path) -> None:
    parts = parts_of(3)
    JobLedger(world.ledger).write(import_jobs.BegunJob(1, ("docs-00000.parquet",), ()))
    world.run(parts)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    for secret in (KEY, ACCESS, SECRET):
        assert not any(secret in text for text in [*written, *world.notes, json.dumps(world.settings().model_dump())])


CLOUD = "https://in01-0123456789abcde.aws-us-west-2.vectordb.zillizcloud.com:19530"


@pytest.mark.parametrize(
    ("collection", "said"),
    [
        ({"uri": CLOUD, "load": "import"}, "set zilliz: {cluster_id: in01-0123456789abcde}"),
        ({"uri": CLOUD, "zilliz": {"cluster_id": CLUSTER}}, "set load: import, or remove it"),
        ({"uri": CLOUD, "load": "import", "zilliz": {}}, "cluster_id is missing"),
        ({"uri": CLOUD, "load": "import", "zilliz": {"cluster_id": "mine"}}, "'mine' is not the id of a cluster"),
        ({"uri": CLOUD, "load": "import", "zilliz": {"project_id": "proj-1"}}, "region_id is missing"),
        (
            {"uri": CLOUD, "load": "import", "zilliz": {"project_id": "proj-1", "region_id": "mars"}},
            "'mars' is not a region of Zilliz Cloud",
        ),
        (
            {"uri": CLOUD, "load": "import", "zilliz": {"cluster_id": CLUSTER, "project_id": "proj-1"}},
            "exclude each other",
        ),
        (
            {"uri": CLOUD, "load": "import", "zilliz": {"cluster_id": CLUSTER, "endpoint": "http://zilliz.example"}},
            "without encryption: use https://",
        ),
        ({"uri": CLOUD, "load": "import", "zilliz": {"cluster_id": CLUSTER, "api_key": "x"}}, "collection.zilliz"),
        ({"uri": "./m.db", "load": "import", "zilliz": {"cluster_id": CLUSTER}}, "Milvus Lite has no bulk import"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, collection: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        configure(tmp_path, collection=collection)
    assert said in str(refused.value)


def test_keys_are_checked_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keys("s3://bucket/checkpoints")
    with pytest.raises(ConfigurationError, match="'/data/checkpoints' is in no bucket that Zilliz Cloud reads"):
        check_keys("/data/checkpoints")
    monkeypatch.delenv("ZILLIZ_STORAGE_SECRET_KEY")
    with pytest.raises(ConfigurationError, match="ZILLIZ_STORAGE_SECRET_KEY is not set"):
        check_keys("s3://bucket/checkpoints")
    monkeypatch.setenv("ZILLIZ_STORAGE_SECRET_KEY", "")  # of a public bucket
    monkeypatch.delenv("ZILLIZ_API_KEY")
    monkeypatch.setenv("MILVUS_TOKEN", "user:password")
    with pytest.raises(ConfigurationError, match="ZILLIZ_API_KEY is not set"):
        check_keys("gs://bucket/checkpoints")
    monkeypatch.setenv("MILVUS_TOKEN", "an-api-key")
    check_keys("gs://bucket/checkpoints")
    monkeypatch.setenv("ZILLIZ_API_KEY", "two words")
    with pytest.raises(ConfigurationError, match="is not an API key"):
        check_keys("gs://bucket/checkpoints")


def test_addresses_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    for uri in (
        "az://box/a b.parquet",
        "abfss://box@mine.dfs.core.windows.net/a b.parquet",
        "azfs://mine/box/a b.parquet",
    ):
        assert object_url(uri) == "https://mine.blob.core.windows.net/box/a%20b.parquet"
