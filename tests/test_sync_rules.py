"""What `vecbeam sync` may and may not do where corpora, collections and checkpoints are not as one would wish."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, texts_by_id, write_jsonl
from run_results import checkpoint_files, served_texts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.load import load
from pipelines.reindex import reindex
from pipelines.steps.corpus import changes
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import CheckpointError, CollectionError, CorpusError, GateError, RejectsError, SpaceMismatchError
from transforms import milvus
from transforms.load.upsert_parts import Ledger
from transforms.support.storage import filesystem

pytestmark = pytest.mark.usefixtures("lite_released")

Record = dict[str, Any]
WRITES = (
    *("insert", "upsert", "delete", "flush", "create_collection", "drop_collection", "create_index", "drop_index"),
    *("create_alias", "alter_alias", "drop_alias", "alter_collection_properties", "rename_collection"),
)


@pytest.fixture
def items(tmp_path: Path) -> list[Record]:
    found = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    write(tmp_path, found)
    return found


def write(folder: Path, items: list[Record]) -> None:
    write_jsonl(folder / "corpus" / "a.jsonl", items[:20])
    write_jsonl(folder / "corpus" / "b.jsonl", items[20:])


def compressed(items: list[Record]) -> bytes:
    return gzip.compress(b"".join(json.dumps(item).encode() + b"\n" for item in items))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the writing calls that Milvus got."""
    import pymilvus

    calls: list[str] = []
    for name in WRITES:
        method = getattr(pymilvus.MilvusClient, name)

        def noted(*args: Any, name: str = name, method: Any = method, **kwargs: Any) -> Any:
            calls.append(name)
            return method(*args, **kwargs)

        monkeypatch.setattr(pymilvus.MilvusClient, name, noted)
    return calls


# What is written


def test_files_that_were_only_touched(tmp_path: Path, items: list[Record], written: list[str]) -> None:
    config = configure(tmp_path)
    sync(config)
    written.clear()
    for name in ("a.jsonl", "b.jsonl"):
        os.utime(tmp_path / "corpus" / name, (1, 1))
    before = {name: found for name, found in checkpoint_files(tmp_path).items() if "/parts/" in name}
    report = sync(config)
    assert (written, report.chunks.embedded, report.items.unchanged) == ([], 0, 40)
    assert {name: found for name, found in checkpoint_files(tmp_path).items() if "/parts/" in name} == before
    files = checkpoint_files(tmp_path)
    sync(config)
    assert (written, checkpoint_files(tmp_path)) == ([], files)


def test_an_edit_and_its_opposite_leave_no_trace_in_the_collection(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    for changed in ("another text", text(3)):
        items[3]["text"] = changed
        write(tmp_path, items)
        assert sync(config).chunks.loaded == 1
    assert served_texts(config) == texts_by_id(items)
    assert sync(config).chunks.loaded == 0


def test_odd_ids_are_edited_moved_and_deleted(tmp_path: Path) -> None:
    ids = ['say "hi"', "back\\slash", "it's", "new\nline", "東京 🚢", "a", "a#0", "{}[]%$", "\\", '\\"', " ", "a\tb"]
    records = [{"id": name, "text": text(number)} for number, name in enumerate(ids)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    config = configure(tmp_path, corpus={"paths": ["corpus/*"], "max_deleted": 1.0})
    sync(config)
    for record in records[::3]:
        record["text"] += " edited"
    for record in records[1::3]:
        record["id"] += "'\"\\"
    records = [record for number, record in enumerate(records) if number % 3 != 2]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    report = sync(config)
    assert (report.items.changed, report.items.moved, report.items.deleted) == (4, 4, 4)
    assert served_texts(config) == texts_by_id(records)


def test_items_with_the_same_text(tmp_path: Path) -> None:
    records = [{"id": f"copy-{number}", "text": "the same for all"} for number in range(10)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    config = configure(tmp_path, corpus={"paths": ["corpus/*"], "max_deleted": 1.0})
    sync(config)
    renamed = [{**record, "id": f"{record['id']}-renamed"} for record in records[:3]]
    more = [{"id": f"more-{number}", "text": "the same for all"} for number in range(4)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [*records[5:], *renamed, *more])
    report = sync(config)
    counts = report.items
    assert (counts.moved, counts.new, counts.deleted, counts.unchanged) == (5, 2, 0, 5)
    assert report.chunks.embedded == 0
    assert served_texts(config) == texts_by_id([*records[5:], *renamed, *more])


# What must not be taken for a deletion


def test_a_listing_that_fails_after_the_first_folder(
    tmp_path: Path, items: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "corpus" / "deep" / "c.jsonl", [{"id": "deep", "text": "deep"}])
    config = configure(tmp_path, corpus={"paths": ["corpus/**/*.jsonl"]})
    sync(config)
    before, real = checkpoint_files(tmp_path), os.scandir

    def failing(folder: Any) -> Any:
        if str(folder).endswith("deep"):
            raise OSError(5, "Input/output error")
        return real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem.os, "scandir", failing)
        with pytest.raises(CorpusError, match="could not be listed to the end"):
            sync(config, allow_deletes=True)
    assert checkpoint_files(tmp_path) == before
    assert "deep" in served_texts(config)


def test_a_broken_file_beside_edits_where_rejects_are_allowed(tmp_path: Path, items: list[Record]) -> None:
    whole = compressed(items[20:])
    (tmp_path / "corpus" / "b.jsonl").unlink()
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(whole)
    config = configure(tmp_path, verify={"max_rejected": 1.0})
    sync(config)
    items[2]["text"] = "edited in the whole file"
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:20])
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(whole[:-60])
    for _ in range(2):
        report = sync(config)
        assert (report.items.deleted, report.rejects, report.balance()) == (0, {"DamagedFile": 1}, [])
        assert report.bytes.read > 0  # it is read again each time
        assert served_texts(config) == texts_by_id(items)
    items[30]["text"] = "edited in the broken file"
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(compressed(items[20:]))
    assert sync(config).items.changed == 1
    assert sync(config).bytes.read == 0
    assert served_texts(config) == texts_by_id(items)


def test_an_item_of_a_broken_file_that_stands_elsewhere_by_now(tmp_path: Path, items: list[Record]) -> None:
    (tmp_path / "corpus" / "b.jsonl").unlink()
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(compressed(items[20:]))
    config = configure(tmp_path, verify={"max_rejected": 1.0})
    sync(config)
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(b"no gzip at all")
    newer = {"id": "item-39", "text": "it came to a"}
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [*items[:20], newer])
    report = sync(config)
    assert (report.items.changed, report.items.deleted, report.balance()) == (1, 0, [])
    assert served_texts(config) == texts_by_id([*items[:39], newer])
    # Gone permanently, its items go as well.
    (tmp_path / "corpus" / "b.jsonl.gz").unlink()
    with pytest.raises(GateError, match="19 of 40 items"):
        sync(config)
    assert sync(config, allow_deletes=True).items.deleted == 19
    assert served_texts(config) == texts_by_id([*items[:20], newer])


def test_a_file_that_vanishes_after_it_was_listed(
    tmp_path: Path, items: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path)
    sync(config)
    items[25]["text"] = "edited"
    write(tmp_path, items)
    plan_ranges = changes.plan_ranges

    def vanishing(*given: Any) -> Any:
        (tmp_path / "corpus" / "b.jsonl").unlink(missing_ok=True)
        return plan_ranges(*given)

    with monkeypatch.context() as patch:
        patch.setattr(changes, "plan_ranges", vanishing)
        with pytest.raises(RejectsError, match="UnreadableFile") as refused:
            sync(config)
    assert refused.value.report.items.deleted == 0
    assert len(served_texts(config)) == 40
    write(tmp_path, items)
    assert sync(config).rejects == {}
    assert served_texts(config) == texts_by_id(items)


def test_an_emptied_corpus(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "corpus" / name).write_text("")
    with pytest.raises(GateError, match="40 of 40 items") as refused:
        sync(config)
    assert "--allow-deletes" not in str(refused.value.remedy)
    for _ in range(2):  # the second time as the first
        with pytest.raises(GateError, match="has no rows"):
            sync(config, allow_deletes=True)
        assert served_texts(config) == texts_by_id(items)
    write(tmp_path, items[:39])
    sync(config)
    assert served_texts(config) == texts_by_id(items[:39])


def test_a_corpus_of_which_nothing_can_be_embedded(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(number), "text": 7} for number in range(5)])
    config = configure(tmp_path)
    for command in (backfill, backfill, sync, sync, reindex):
        with pytest.raises(RejectsError, match=r"no item could be embedded: 5 rejects"):
            command(config)
        with pytest.raises(CheckpointError, match="holds no snapshot"):
            load(config)
        with milvus.connected(config.collection) as connection:
            assert connection.client.list_collections() == []


def test_syncs_that_were_refused_pile_up_and_go_in_together(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    before = texts_by_id(items)
    bad = [{"id": f"bad-{number}", "text": None} for number in range(5)]
    for number in (1, 2, 3):
        items[number]["text"] = f"edit {number}"
        items[30 + number]["id"] = f"moved {number}"
        write(tmp_path, [*items, *bad])
        with pytest.raises(RejectsError, match="stays as it is"):
            sync(config)
        assert served_texts(config) == before
    write(tmp_path, items)
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.loaded) == (0, 6)
    assert served_texts(config) == texts_by_id(items)


# Ids that more than one item has


def duplicating(folder: Path, policy: str) -> Config:
    return configure(folder, corpus={"paths": ["corpus/*"], "on_duplicate": policy, "max_deleted": 1.0})


@pytest.mark.parametrize("policy", ["first", "last"])
def test_of_three_with_one_id_the_next_takes_the_place(tmp_path: Path, policy: str) -> None:
    names = ["a.jsonl", "b.jsonl", "c.jsonl"]
    for name in names:
        write_jsonl(tmp_path / "corpus" / name, [{"id": "x", "text": f"in {name}"}, {"id": name, "text": name}])
    config = duplicating(tmp_path, policy)
    order = names if policy == "first" else names[::-1]
    for turn, name in enumerate(order):
        report = sync(config)
        assert served_texts(config)["x"] == f"in {name}"
        assert report.rejects.get("DuplicateId", 0) == 2 - turn
        assert report.balance() == []
        assert sync(config).bytes.read == 0
        write_jsonl(tmp_path / "corpus" / name, [{"id": name, "text": name}])
    sync(config)
    assert served_texts(config) == {name: name for name in names}


def test_another_policy_counts_for_files_that_did_not_change(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "x", "text": "in a"}, {"id": "y", "text": "y"}])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "x", "text": "in b"}])
    for policy, kept in (("first", "in a"), ("last", "in b"), ("first", "in a")):
        sync(duplicating(tmp_path, policy))
        assert served_texts(duplicating(tmp_path, policy)) == {"x": kept, "y": "y"}
    with pytest.raises(CorpusError, match="ids that more than one item has: 1"):
        sync(duplicating(tmp_path, "error"))


def test_the_one_that_was_left_out_is_edited(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "x", "text": "in a"}, {"id": "y", "text": "y"}])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "x", "text": "in b"}])
    config = duplicating(tmp_path, "first")
    sync(config)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "x", "text": "in b, edited"}, {"id": "z", "text": "z"}])
    report = sync(config)
    assert (report.items.new, report.items.changed, report.chunks.embedded) == (1, 0, 1)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "y", "text": "y"}])
    sync(config)
    assert served_texts(config) == {"x": "in b, edited", "y": "y", "z": "z"}


# Hands of others on the collection


def test_an_alias_moved_back_to_an_older_collection(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    first = backfill(config).collection
    items[3]["text"] = "edited"
    write(tmp_path, items)
    second = backfill(config).collection
    assert second != first
    with milvus.connected(config.collection) as connection:
        connection.client.alter_alias(first, "tested")
    items[4]["text"] = "edited as well"
    write(tmp_path, items)
    report = sync(config)
    assert (report.collection, report.chunks.embedded, report.chunks.loaded) == (first, 1, 2)
    assert served_texts(config) == texts_by_id(items)
    with milvus.connected(config.collection) as connection:
        connection.client.alter_alias(second, "tested")
    assert (sync(config).collection, served_texts(config)) == (second, texts_by_id(items))


def test_a_collection_dropped_under_its_alias(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    name = sync(config).collection
    with milvus.connected(config.collection) as connection:
        connection.client.drop_alias("tested")
        connection.client.drop_collection(name)
        connection.client.create_collection(name, dimension=32)
        connection.client.create_alias(name, "tested")
    with pytest.raises(CollectionError, match="which vecbeam did not create"):
        sync(config)
    with milvus.connected(config.collection) as connection:
        connection.client.drop_alias("tested")
        connection.client.drop_collection(name)
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.loaded, report.verify.published) == (0, 40, True)
    assert served_texts(config) == texts_by_id(items)


@pytest.mark.parametrize("kind", ["stale", "unexpected"])
def test_each_kind_of_wrong_row_is_mended(tmp_path: Path, items: list[Record], kind: str) -> None:
    config = configure(tmp_path, batch_rows=10)
    name = sync(config).collection
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection(name)
        [row] = connection.client.query(name, filter='id == "item-7#0"', output_fields=["*"])
        if kind == "stale":
            connection.client.upsert(name, [{**row, "text": "manual", "content_hash": "0" * 32}])
        else:
            connection.client.upsert(
                name, [{**row, "id": f"manual {number}", "item_id": str(number)} for number in range(3)]
            )
    path = str(tmp_path / "vecbeam.yaml")
    runner = CliRunner()
    assert runner.invoke(app, ["verify", path, "--quiet"]).exit_code == 3
    if kind != "stale":  # only looking at every row tells
        assert runner.invoke(app, ["sync", path, "--quiet"]).exit_code == 3
    assert runner.invoke(app, ["verify", path, "--quiet", "--repair"]).exit_code == 0
    assert runner.invoke(app, ["sync", path, "--quiet"]).exit_code == 0
    assert served_texts(config) == texts_by_id(items)


def test_wrong_rows_and_an_edit_at_once(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path, batch_rows=10)
    name = sync(config).collection
    with milvus.connected(config.collection) as connection:
        connection.client.delete(name, filter='item_id in ["item-7", "item-31"]')
    items[7]["text"] = "edited, and its row comes with that"
    items[8]["text"] = "edited"
    write(tmp_path, items)
    with pytest.raises(GateError, match=r"1 rows missing \(first: item-31#0\).*verify --repair"):
        sync(config)
    verify(config, repair=True)
    assert served_texts(config) == texts_by_id(items)
    assert sync(config).chunks.loaded == 0


@pytest.mark.parametrize("command", ["sync", "repair", "sync after an edit"])
def test_a_sync_that_broke_off_in_the_middle(
    tmp_path: Path, items: list[Record], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path, batch_rows=10)
    sync(config)
    for number in range(0, 40, 3):
        items[number]["text"] = f"edit {number}"
    items[1]["id"] = "moved"
    del items[5]
    write(tmp_path, items)

    def failing(*_: Any) -> None:
        raise CollectionError("the network went away")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "acknowledge", failing)
        with pytest.raises(CollectionError, match="the network went away"):
            sync(config)
    with pytest.raises(GateError):
        verify(config)
    if command == "repair":
        verify(config, repair=True)
        assert sync(config).chunks.loaded == 0
    else:
        if command == "sync after an edit":
            items[0]["text"] = text(0)
            items[2]["id"] = "moved as well"
            del items[10]
            write(tmp_path, items)
        sync(config)
    assert served_texts(config) == texts_by_id(items)
    assert verify(config).verify.found == len(items)


# The checkpoint and the configuration


def test_the_whole_checkpoint_is_gone(tmp_path: Path, items: list[Record]) -> None:
    import shutil

    config = configure(tmp_path)
    name = sync(config).collection
    shutil.rmtree(tmp_path / "checkpoint")
    del items[5]
    items[6]["text"] = "edited"
    write(tmp_path, items)
    report = sync(config)
    assert (report.collection, report.chunks.embedded) == (name, 39)
    assert served_texts(config) == texts_by_id(items)


@pytest.mark.parametrize("folder", ["snapshots", "files"])
def test_what_the_message_says_of_a_damaged_file_is_enough(tmp_path: Path, items: list[Record], folder: str) -> None:
    config = configure(tmp_path)
    sync(config)
    [damaged] = (tmp_path / "checkpoint" / "tested" / folder).iterdir()
    damaged.write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    del items[5]
    items[6]["text"] = "edited"
    write(tmp_path, items)
    done = CliRunner().invoke(app, ["sync", str(tmp_path / "vecbeam.yaml"), "--quiet"])
    assert (done.exit_code, "Traceback" in done.stderr) == (1, False)
    assert f"can't read {damaged}" in " ".join(done.stderr.split())
    assert "delete that file and run the same command again" in " ".join(done.stderr.split())
    damaged.unlink()
    sync(config)
    assert served_texts(config) == texts_by_id(items)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}}},
            r"index \(HNSW.*configured is FLAT.*vecbeam reindex",
        ),
        ({"corpus": {"paths": ["corpus/*"], "metadata": {"kind": "string"}}}, r"metadata fields.*vecbeam reindex"),
        (
            {"encoder": {"model": "fake", "dimensions": 16}},
            r"space [0-9a-f]{16}.*space [0-9a-f]{16}.*dimensions: 16 here, 32.*reindex",
        ),
    ],
    ids=["index", "fields", "model"],
)
def test_a_configuration_that_does_not_fit_costs_nothing(
    tmp_path: Path, items: list[Record], wrong: Record, message: str
) -> None:
    config = configure(tmp_path)
    sync(config)
    items[6]["text"] = "edited"
    write(tmp_path, items)
    before = checkpoint_files(tmp_path)
    with pytest.raises(CollectionError, match=message) as refused:
        sync(configure(tmp_path, **wrong))
    assert isinstance(refused.value, SpaceMismatchError) == ("encoder" in wrong)
    assert (refused.value.report.bytes.read, checkpoint_files(tmp_path)) == (0, before)
    sync(configure(tmp_path))
    assert served_texts(config) == texts_by_id(items)
