"""`collection.load: import` on the real server: it reads the parts itself, and each row exists once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collection_data import configuration
from conftest import empty
from corpora import configure, text, write_jsonl
from milvus_server import Server
from pymilvus.client.grpc_handler import GrpcHandler
from run_results import served_rows
from zilliz_server import ACCESS, CLUSTER, KEY, SECRET, zilliz_server

from pipelines.backfill import backfill
from pipelines.reindex import reindex
from pipelines.sync import sync
from schemas.config import Config, Zilliz
from schemas.errors import CollectionError, InterruptedRunError
from transforms import milvus
from transforms.load import import_jobs
from transforms.load.upsert_parts import Ledger
from transforms.milvus.rows import bulk_import
from transforms.support import stop

pytestmark = pytest.mark.server
ITEMS = 2500


@pytest.fixture
def uri(milvus_server: Server) -> Iterator[str]:
    empty(milvus_server.uri)
    yield milvus_server.uri
    empty(milvus_server.uri)


def configured(folder: Path, uri: str, load: str = "import", **more: Any) -> Config:
    return configure(
        folder,
        corpus={"paths": ["corpus/*"], "metadata": {"kind": {"type": "string", "default": "none"}}},
        collection={"uri": uri, "index": {"type": "IVF_FLAT", "nlist": 16}, "search": {"nprobe": 16}, "load": load},
        batch_rows=500,
        **more,
    )


def write(folder: Path, texts: list[str], kinds: int = ITEMS) -> None:
    records = [{"id": f"item-{at}", "text": words} for at, words in enumerate(texts)]
    write_jsonl(folder / "corpus" / "a.jsonl", [r | {"kind": "a"} if at < kinds else r for at, r in enumerate(records)])


def test_imported_rows_are_those_that_are_upserted(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The last part has gaps that a default fills, which no import does: it is upserted.
    write(tmp_path, [text(number) for number in range(ITEMS)], kinds=ITEMS - 3)
    sent: list[int] = []
    upsert = milvus.upsert
    monkeypatch.setattr(milvus, "upsert", lambda *given: (sent.append(given[2].num_rows), upsert(*given))[1])
    report = backfill(configured(tmp_path, uri))
    imported = served_rows(configured(tmp_path, uri))
    assert (report.chunks.loaded, report.verify.found, report.verify.published) == (ITEMS, ITEMS, True)
    assert sent == [500]

    again = backfill(configured(tmp_path, uri))
    assert (again.chunks.embedded, again.chunks.loaded) == (0, 0)

    empty(uri)
    backfill(configured(tmp_path, uri, "upsert"))
    upserted = served_rows(configured(tmp_path, uri))
    assert imported.keys() == upserted.keys()
    for name, row in imported.items():
        assert np.array_equal(row.pop("vector"), upserted[name].pop("vector"))
        assert row == upserted[name]


def test_parts_with_dead_rows_are_upserted_beside(tmp_path: Path, uri: str) -> None:
    texts = [text(number) for number in range(ITEMS)]
    write(tmp_path, texts)
    backfill(configured(tmp_path, uri, "upsert"))
    texts[700] = "quite another text"
    write(tmp_path, texts)
    sync(configured(tmp_path, uri, "upsert"))
    config = configured(tmp_path, uri)
    config = config.model_copy(update={"collection": config.collection.model_copy(update={"metric": "L2"})})
    report = reindex(config)
    assert (report.chunks.embedded, report.chunks.loaded, report.verify.found) == (0, ITEMS, ITEMS)
    assert served_rows(config)["item-700#0"]["text"] == "quite another text"


def test_an_import_that_broke_off_continues(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed after its first part: the next one waits for the server's jobs, and begins no second."""
    write(tmp_path, [text(number) for number in range(ITEMS)])
    config = configured(tmp_path, uri)
    asked = requests_for_jobs(monkeypatch)
    acknowledge = Ledger.acknowledge

    def killed(ledger: Ledger, part: str, rows: int) -> None:
        acknowledge(ledger, part, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "acknowledge", killed)
        with pytest.raises(InterruptedRunError):
            backfill(config)
    assert list((tmp_path / "checkpoint").glob("*/loads/**/*.job"))
    with milvus.connected(config.collection) as connection:
        begun = milvus.names(connection)
    report = backfill(config)
    assert (report.chunks.embedded, report.verify.found, report.verify.published) == (0, ITEMS, True)
    assert report.collection in begun  # it was not made from scratch
    assert len(served_rows(config)) == ITEMS
    assert len(asked) == len(set(asked)) == 5
    assert not list((tmp_path / "checkpoint").glob("*/loads/**/*"))


@pytest.mark.parametrize("left", ["a mark of release 0.1.0", "jobs, and load is upsert now"])
def test_an_import_of_which_not_all_is_known_begins_from_scratch(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    write(tmp_path, [text(number) for number in range(ITEMS)])
    config = configured(tmp_path, uri)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "acknowledge", killed)
        with pytest.raises(InterruptedRunError):
            backfill(config)
    if left.startswith("a mark"):
        folder = next((tmp_path / "checkpoint").glob("*/loads/*"))
        (folder / "import.begun").write_bytes(b"")
    else:
        config = configured(tmp_path, uri, "upsert")
    report = backfill(config)
    assert (report.chunks.embedded, report.verify.found, report.verify.published) == (0, ITEMS, True)
    assert len(served_rows(config)) == ITEMS


def requests_for_jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of all jobs that are begun from now on."""
    asked: list[str] = []
    begin = GrpcHandler.do_bulk_insert

    def counted(self: Any, name: str, partition: str, files: list[str], **keys: Any) -> Any:
        asked.extend(files)
        return begin(self, name, partition, files, **keys)

    monkeypatch.setattr(GrpcHandler, "do_bulk_insert", counted)
    return asked


def test_an_answer_that_is_lost_imports_nothing_twice(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's list of jobs tells that it began one."""
    write(tmp_path, [text(number) for number in range(ITEMS)])
    config = configured(tmp_path, uri)
    asked: list[str] = []
    begin = GrpcHandler.do_bulk_insert

    def lost(self: Any, name: str, partition: str, files: list[str], **keys: Any) -> Any:
        begin(self, name, partition, files, **keys)
        asked.extend(files)
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(GrpcHandler, "do_bulk_insert", lost)
    report = backfill(config)
    assert (report.chunks.loaded, report.verify.found, report.verify.published) == (ITEMS, ITEMS, True)
    assert len(asked) == len(set(asked)) == 5
    assert len(served_rows(config)) == ITEMS


def test_zilliz_cloud_imports_from_a_bucket(
    tmp_path: Path, uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zilliz_server` answers for the real server, and fetches the parts from S3, with the keys it got."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name, value in (("API_KEY", KEY), ("STORAGE_ACCESS_KEY", ACCESS), ("STORAGE_SECRET_KEY", SECRET)):
        monkeypatch.setenv(f"ZILLIZ_{name}", value)
    monkeypatch.setattr(import_jobs, "SETTLE_S", 0.5)
    keys = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    bucket = boto3.client("s3", endpoint_url=s3_endpoint, **keys)
    bucket.create_bucket(Bucket="zilliz")
    write(tmp_path, [text(number) for number in range(ITEMS)])
    with zilliz_server() as server, milvus.connected(configuration(uri)) as connection:
        handler = connection.client._get_connection()

        def imports(files: list[str]) -> int:
            rows = 0
            for file in files:
                local = tmp_path / file.rsplit("/", 1)[-1]
                bucket.download_file("zilliz", file.removeprefix("s3://zilliz/"), str(local))
                job = handler.do_bulk_insert(server.made("create")[-1]["collectionName"], "", [str(local)])
                while (state := handler.get_bulk_insert_state(job)).state != state.ImportCompleted:
                    assert "Failed" not in state.state_name, state.failed_reason
                    time.sleep(0.1)
                rows += int(state.row_count)
            return rows

        server.imports = imports
        server.faults.append(("create", "lost"))
        config = configured(
            tmp_path,
            uri,
            checkpoint="s3://zilliz/checkpoints",
            runner={"name": "local", "s3_endpoint_url": s3_endpoint},
        )
        zilliz = Zilliz(cluster_id=CLUSTER, endpoint=server.uri)
        config = config.model_copy(update={"collection": config.collection.model_copy(update={"zilliz": zilliz})})
        report = backfill(config)
        assert (report.chunks.loaded, report.verify.found, report.verify.published) == (ITEMS, ITEMS, True)
        assert [len(body["objectUrls"]) for body in server.made("create")] == [5]
        assert all(file.startswith("s3://zilliz/checkpoints/") for (file,) in server.made("create")[0]["objectUrls"])
        assert len(served_rows(config)) == ITEMS
        assert not any(secret in json.dumps(report.as_json()) for secret in (KEY, ACCESS, SECRET))


def test_ctrl_c_stops_an_import(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [text(number) for number in range(ITEMS)])
    config = configured(tmp_path, uri)
    begin = GrpcHandler.do_bulk_insert

    def stopped(self: Any, *given: Any, **keys: Any) -> Any:
        stop.request_stop()
        return begin(self, *given, **keys)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(GrpcHandler, "do_bulk_insert", stopped)
            with pytest.raises(InterruptedRunError):
                backfill(config)
    finally:
        stop.reset()
    report = backfill(config)
    assert (report.verify.found, report.verify.published) == (ITEMS, True)


def test_a_server_that_does_not_see_the_checkpoint(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [text(number) for number in range(100)])
    config = configured(tmp_path, uri)
    with monkeypatch.context() as patch:
        patch.setattr(bulk_import, "server_path", lambda uri: "/nowhere" + uri)
        with pytest.raises(CollectionError, match=r"can't import .*\.parquet: .*collection.load: upsert"):
            backfill(config)
    # What the message says.
    report = backfill(configured(tmp_path, uri, "upsert"))
    assert (report.verify.found, report.verify.published) == (100, True)


def test_the_report_says_so_too(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [text(number) for number in range(100)])
    report = backfill(configured(tmp_path, uri))
    stored = json.loads(next((tmp_path / "checkpoint").glob("*/runs/*/report.json")).read_text())
    assert stored["chunks"]["loaded"] == report.chunks.loaded == 100
    assert stored["seconds"]["load"] > 0
