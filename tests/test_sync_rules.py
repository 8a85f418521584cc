"""What `vecbeam sync` writes, and whose ids count; and a configuration that does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, texts_by_id, write_jsonl, write_two
from run_results import checkpoint_files, served_texts

from pipelines.sync import sync
from schemas.config import Config
from schemas.errors import CollectionError, CorpusError, SpaceMismatchError

pytestmark = pytest.mark.usefixtures("lite_released")

Record = dict[str, Any]


def test_files_that_were_only_touched(tmp_path: Path, items: list[Record], milvus_writes: list[str]) -> None:
    config = configure(tmp_path)
    sync(config)
    milvus_writes.clear()
    for name in ("a.jsonl", "b.jsonl"):
        os.utime(tmp_path / "corpus" / name, (1, 1))
    before = {name: found for name, found in checkpoint_files(tmp_path).items() if "/parts/" in name}
    report = sync(config)
    assert (milvus_writes, report.chunks.embedded, report.items.unchanged) == ([], 0, 40)
    assert {name: found for name, found in checkpoint_files(tmp_path).items() if "/parts/" in name} == before
    files = checkpoint_files(tmp_path)
    sync(config)
    assert (milvus_writes, checkpoint_files(tmp_path)) == ([], files)


def test_an_edit_and_its_opposite_leave_no_trace_in_the_collection(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    for changed in ("another text", text(3)):
        items[3]["text"] = changed
        write_two(tmp_path, items)
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
    write_two(tmp_path, items)
    before = checkpoint_files(tmp_path)
    with pytest.raises(CollectionError, match=message) as refused:
        sync(configure(tmp_path, **wrong))
    assert isinstance(refused.value, SpaceMismatchError) == ("encoder" in wrong)
    assert (refused.value.report.bytes.read, checkpoint_files(tmp_path)) == (0, before)
    sync(configure(tmp_path))
    assert served_texts(config) == texts_by_id(items)
