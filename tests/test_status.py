"""`vecbeam status`: what is served, what the checkpoint has, the last run, and what is not there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

import vecbeam
from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.gc import gc
from pipelines.load import load
from pipelines.reindex import reindex
from pipelines.run.report_store import reports
from pipelines.status import status
from pipelines.status import text as page
from pipelines.sync import sync
from schemas.errors import RejectsError
from transforms.checkpoint import lock
from transforms.milvus import release

INDEX = {"index": {"type": "HNSW", "M": 8, "efConstruction": 64}}


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def write(folder: Path, count: int, *more: str) -> None:
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"i{n}", "text": text(n)} for n in range(count)])
    with open(folder / "corpus" / "a.jsonl", "a") as file:
        file.writelines(f"{line}\n" for line in more)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files but those of Milvus Lite."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "milvus.db" not in path.parts
    }


def test_from_nothing_to_a_second_collection(tmp_path: Path) -> None:
    write(tmp_path, 40, "{broken")
    config = configure(tmp_path, verify={"max_rejected": 0.5})
    path = str(tmp_path / "vecbeam.yaml")
    empty = command("status", path)
    assert empty.exit_code == 0, empty.output
    assert "there is no Milvus Lite collection at" in empty.stdout
    assert "newest    no snapshot in" in empty.stdout
    assert "last run  none" in empty.stdout
    assert not (tmp_path / "milvus.db").exists()
    assert not (tmp_path / "checkpoint").exists()

    first = backfill(config)
    before = files(tmp_path)
    found = status(config)
    assert files(tmp_path) == before
    assert (found.served is not None, found.newest is not None, found.previous, found.lock) == (True, True, None, None)
    assert found.served is not None
    assert found.newest is not None
    assert (found.served.collection, found.served.rows, found.served.snapshot_rows) == (first.collection, 40, 40)
    assert found.served.published_by == found.served.updated_by == first.run_id
    assert found.served.published.startswith(f"{first.run_id[:4]}-{first.run_id[4:6]}-{first.run_id[6:8]} ")
    assert found.served.index == {"vector": "HNSW COSINE, M 8, efConstruction 64"}
    assert (found.newest.rows, found.newest.items, found.newest.rejects) == (40, 40, {"InvalidJson": 1})
    assert found.newest.snapshot == found.served.snapshot == first.snapshot
    assert (found.encoder.space, found.encoder.is_served) == (first.space, True)
    assert found.last_run is not None
    assert (found.last_run["run_id"], found.last_run["exit_code"], found.last_run["error"]) == (first.run_id, 0, None)
    assert found.notes == []
    assert "previous  no collection to roll back to" in page(found)

    # A run that had nothing to do is the last one, and not the one that updated the collection.
    assert sync(config).chunks.loaded == 0
    found = status(config)
    assert found.served is not None
    assert found.last_run is not None
    assert found.last_run["command"] == "sync"
    assert found.served.updated_by == first.run_id

    # A refused run: its snapshot is not taken.
    write(tmp_path, 40, *["{broken"] * 60)
    with pytest.raises(RejectsError):
        sync(config)
    found = status(config)
    assert found.last_run is not None
    assert (found.last_run["exit_code"], found.last_run["error"]["class"]) == (4, "RejectsError")
    assert len(found.notes) == 1
    assert found.notes[0].startswith("a later run was refused, and its snapshot not taken: 60 of 100 items")

    # Another model: what is configured is not what is served, then it is, and the first collection is the previous one.
    write(tmp_path, 41)
    other = configure(tmp_path, encoder={"model": "fake", "dimensions": 16})
    found = status(other)
    assert found.encoder.is_served is False
    assert "run vecbeam reindex" in found.notes[-1]
    second = reindex(other)
    found = status(other)
    assert found.previous is not None
    assert (found.previous.collection, found.previous.space, found.previous.ready) == (
        first.collection,
        first.space,
        True,
    )
    assert found.served is not None
    assert (found.served.collection, found.served.rows) == (second.collection, 41)
    assert found.served.published_by == second.run_id
    assert found.encoder.is_served is True
    shown = command("status", path).stdout
    assert f"previous  {first.collection}, space {first.space}\n" in shown
    assert f"encoder   fake, space {second.space}, as served" in shown
    assert ", served\n" in shown
    in_json = json.loads(command("status", path, "--json").stdout)
    assert (in_json["format_version"], in_json["served"]["rows"], in_json["alias"]) == (1, 41, "tested")
    assert in_json["served"]["updated_by"] == second.run_id

    # A sync that wrote rows, and another one.
    write(tmp_path, 43)
    sync(other)
    write(tmp_path, 41)
    updated = sync(other)
    assert sync(other).chunks.loaded == 0
    shown = command("status", path).stdout
    assert f"UTC by {updated.run_id}\n" in shown
    assert f"UTC by {second.run_id}\n" in shown

    # Rows that are missing, and a snapshot that is not published.
    from pymilvus import MilvusClient

    client = MilvusClient(str(tmp_path / "milvus.db"))
    client.delete(second.collection, ids=["i0#0"])
    client.close()
    write(tmp_path, 42)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.sync.bring_collection", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sync(other)
    notes = vecbeam.Index(path).status().notes
    assert any("40 rows are served, 41 are in their snapshot: run vecbeam verify" in note for note in notes), notes
    assert any("a newer snapshot with 42 rows is not published" in note for note in notes), notes
    # What stopped the last run of that snapshot is named, until a later run of it ends well.
    failed = reports(other)
    assert f"; {next(failed).run_id}: " in next(note for note in notes if "42 rows" in note)
    load(other, rebuild=True)
    client = MilvusClient(str(tmp_path / "milvus.db"))
    client.create_collection("foreign", dimension=4)
    client.alter_alias("foreign", "tested")
    client.close()
    notes = vecbeam.Index(path).status().notes
    assert "vecbeam did not make foreign: the alias was moved to it by another program" in notes, notes
    served = next(report.served.collection for report in reports(other) if report.served is not None)
    assert gc(other, keep=0).kept == [served]
    client = MilvusClient(str(tmp_path / "milvus.db"))
    client.drop_alias("tested")
    client.close()
    assert gc(other, keep=0).kept == [served]
    [note] = vecbeam.Index(path).status().notes
    assert note.startswith("the newest snapshot with 42 rows is not published (")
    assert note.endswith(".parquet)")
    release(other.collection)


def test_a_server_that_is_down_and_a_model_whose_files_are_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 5)
    backfill(config := configure(tmp_path))
    release(config.collection)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("called the hub"))
    configure(
        tmp_path,
        collection={"uri": f"http://127.0.0.1:{port}"},
        encoder={"model": "somebody/no-such-model", "revision": "0123456789abcdef"},
    )
    done = command("status", str(tmp_path / "vecbeam.yaml"))
    assert done.exit_code == 0, done.output
    assert "milvus    does not answer: " in done.stdout
    assert f"127.0.0.1:{port}" in done.stdout
    assert "newest    5 rows of 5 items" in done.stdout
    assert "its space is not known: the files of somebody/no-such-model at revision 0123456789abcdef" in done.stdout
    assert "not published" not in done.stdout
    found = json.loads(command("status", str(tmp_path / "vecbeam.yaml"), "--json").stdout)
    assert (found["served"], found["server"], found["encoder"]["is_served"]) == (None, "", None)
    assert found["error"]


def test_a_lite_file_that_another_process_has_open(tmp_path: Path) -> None:
    write(tmp_path, 5)
    backfill(config := configure(tmp_path))
    release(config.collection)
    code = (
        f"from pymilvus import MilvusClient as C; c = C({str(tmp_path / 'milvus.db')!r}); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-3, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        found = status(config)
        other.communicate("\n")
    assert found.served is None
    assert "another process" in found.error
    assert found.newest is not None


def test_who_holds_the_lock_and_a_holder_that_is_gone(tmp_path: Path) -> None:
    config = configure(tmp_path)
    write(tmp_path, 1)
    root = str(tmp_path / "checkpoint" / "tested")
    with lock.held(root, "20261126T150201Z-sync-1"):
        shown = command("status", str(tmp_path / "vecbeam.yaml")).stdout
        assert (
            f"lock      run 20261126T150201Z-sync-1, process {os.getpid()} on {socket.gethostname()}, since " in shown
        )
    assert status(config).lock is None
    holder = Path(root) / "runs" / ".holder.json"
    gone = {"run_id": "r", "host": socket.gethostname(), "process": 1, "process_started": 0.0}
    holder.write_text(json.dumps(gone))
    assert status(config).lock is None
    holder.write_text(json.dumps({**gone, "process_started": psutil.Process(1).create_time()}))
    assert status(config).lock is not None
    holder.write_text("{cut")
    assert status(config).lock is None
    # A job on other machines outlives the process that started it.
    holder.write_text(json.dumps({**gone, "jobs": [{"id": "j"}]}))
    assert status(config).lock is not None
