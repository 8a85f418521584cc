"""`vecbeam sync` on a temporary folder, with the fake encoder and Milvus Lite."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpora import configure, text, texts_by_id, write_jsonl, write_two
from run_results import checkpoint_files, served_rows, served_texts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.search import search
from pipelines.steps.snapshot import embedding
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.errors import CheckpointError, CollectionError, CorpusError, GateError, RejectsError, SpaceMismatchError
from transforms import milvus
from transforms.checkpoint import merge

pytestmark = pytest.mark.usefixtures("lite_released")


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    found = [{"id": f"item-{number}", "text": text(number)} for number in range(100)]
    write_two(tmp_path, found, 60)
    return found


def test_the_first_sync_is_a_backfill(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    report = sync(config)
    assert (report.items.new, report.chunks.loaded, report.verify.recall_at_10) == (100, 100, 1.0)
    assert served_texts(config) == texts_by_id(items)


def test_only_what_changed_is_embedded_and_written(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, batch_rows=16)
    first = backfill(config)
    items[3]["text"] = "something else altogether"
    items[70]["id"] = "another-id"
    items[20]["text"] = " ".join(text(number) for number in range(100))
    del items[10]
    items.append({"id": "added", "text": "a text that was not there"})
    write_two(tmp_path, items, 60)
    report = sync(config)

    assert report.collection == first.collection
    counts = report.items
    assert (counts.new, counts.changed, counts.moved, counts.deleted, counts.unchanged) == (1, 2, 1, 1, 96)
    assert report.balance() == []
    rows = served_rows(config)
    short = {row["item_id"]: row["text"] for row in rows.values() if row["item_id"] != "item-20"}
    assert short == texts_by_id([item for item in items if item["id"] != "item-20"])
    assert report.chunks.embedded == 2 + sum(key.startswith("item-20#") for key in rows)
    assert search(config, "something else altogether", k=1)[0]["item_id"] == "item-3"

    items[19]["text"] = text(20)
    write_two(tmp_path, items, 60)
    report = sync(config)
    assert served_texts(config) == texts_by_id(items)
    assert report.chunks.deleted == sum(key.startswith("item-20#") for key in rows) - 1
    assert report.plan is not None
    assert report.plan.items["changed"] == 1


def test_nothing_changed_nothing_written(tmp_path: Path, items: list[dict[str, Any]], milvus_writes: list[str]) -> None:
    config = configure(tmp_path)
    sync(config)
    items[3]["text"] = "something else altogether"
    write_two(tmp_path, items, 60)
    sync(config)
    before = checkpoint_files(tmp_path)
    milvus_writes.clear()
    report = sync(config)
    assert (milvus_writes, checkpoint_files(tmp_path)) == ([], before)
    assert (report.chunks.embedded, report.chunks.loaded, report.bytes.read, report.items.unchanged) == (0, 0, 0, 100)


def test_an_unchanged_file_is_not_read(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path)
    sync(config)
    items[0]["text"] = "changed"
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:60])
    report = sync(config)
    assert 0 < report.bytes.read <= 2 * (tmp_path / "corpus" / "a.jsonl").stat().st_size


def test_a_file_renamed_is_not_embedded_again(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    (tmp_path / "corpus" / "a.jsonl").rename(tmp_path / "corpus" / "z.jsonl")
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.loaded, report.chunks.deleted) == (0, 0, 0)
    assert (report.items.unchanged, report.items.deleted) == (100, 0)
    write_jsonl(tmp_path / "corpus" / "z.jsonl", items[1:60])
    assert sync(config).items.deleted == 1
    assert served_texts(config) == texts_by_id(items[1:])


def test_a_clock_that_moved_back(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    items[3]["text"] = items[3]["text"][:-1] + "x"
    write_two(tmp_path, items, 60)
    for name in ("a.jsonl", "b.jsonl"):
        os.utime(tmp_path / "corpus" / name, (86400, 86400))
    assert sync(config).items.changed == 1
    assert served_texts(config) == texts_by_id(items)


# What must not be taken for a deletion


def test_more_deletions_than_allowed(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    before = checkpoint_files(tmp_path)
    (tmp_path / "corpus" / "b.jsonl").unlink()
    done = CliRunner().invoke(app, ["sync", str(tmp_path / "vecbeam.yaml")])
    assert done.exit_code == 3
    assert "40 of 100 items are no longer in the corpus, corpus.max_deleted allows 20%" in done.stderr
    assert "--allow-deletes" in done.stderr
    assert served_texts(config) == texts_by_id(items)
    assert checkpoint_files(tmp_path) == before
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["sync", str(tmp_path / "vecbeam.yaml"), "--allow-deletes", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["items"]["deleted"]) == (0, 40)
    assert served_texts(config) == texts_by_id(items[:60])


def test_a_file_that_breaks_off_keeps_its_items(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:60])
    (tmp_path / "corpus" / "b.jsonl").unlink()
    whole = gzip.compress(b"".join(json.dumps(item).encode() + b"\n" for item in items[60:]))
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(whole)
    config = configure(tmp_path)
    sync(config)
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(RejectsError, match="files could not be read to their end") as refused:
            sync(config)
        assert refused.value.report.items.deleted == 0
        assert refused.value.report.balance() == []
        assert served_texts(config) == texts_by_id(items)
    (tmp_path / "corpus" / "b.jsonl.gz").write_bytes(whole)
    report = sync(config)
    assert (report.items.unchanged, report.chunks.embedded, report.rejects) == (100, 0, {})


def test_rejects_over_the_limit_leave_the_collection_as_it_is(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    bad: list[dict[str, Any]] = [{"id": f"bad-{number}", "text": 7} for number in range(5)]
    write_two(tmp_path, [*items, *bad, {"id": "new", "text": "a new one"}], 60)
    with pytest.raises(RejectsError, match=r"5 of 106 items were rejected") as refused:
        sync(config)
    assert refused.value.report.chunks.loaded == 0
    assert served_texts(config) == texts_by_id(items)
    report = sync(configure(tmp_path, verify={"max_rejected": 0.1}))
    assert (report.chunks.embedded, report.chunks.loaded) == (0, 1)


# Ids that more than one item has


@pytest.mark.parametrize(("policy", "kept"), [("first", "in a"), ("last", "in b")])
def test_an_id_in_a_changed_and_an_unchanged_file(
    tmp_path: Path, items: list[dict[str, Any]], policy: str, kept: str
) -> None:
    config = configure(tmp_path, corpus={"paths": ["corpus/*"], "on_duplicate": policy}, verify={"max_rejected": 0.1})
    items[0]["text"] = "in a"
    write_two(tmp_path, items, 60)
    sync(config)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [*items[60:], {"id": "item-0", "text": "in b"}])
    report = sync(config)
    assert (served_texts(config)["item-0"], report.rejects) == (kept, {"DuplicateId": 1})
    assert report.balance() == []
    # The other one comes back where the one that was kept goes.
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[1:60])
    sync(config)
    assert served_texts(config)["item-0"] == "in b"


def test_an_id_that_stands_twice_is_an_error_before_anything_is_written(
    tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    config = configure(tmp_path)
    sync(config)
    before = checkpoint_files(tmp_path)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [*items[60:], {"id": "item-0", "text": "again"}])
    with pytest.raises(CorpusError, match=r"'item-0' at .*a.jsonl line 1 and .*b.jsonl line 41"):
        sync(config)
    assert (served_texts(config), checkpoint_files(tmp_path)) == (texts_by_id(items), before)


# The corpus changes while it is read


def test_a_corpus_that_changes_between_the_survey_and_the_embedding(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path)
    sync(config)
    items[3]["text"] = "first edit"
    write_two(tmp_path, items, 60)
    check: Callable[..., None] = embedding.check_deletions

    def meanwhile(*given: Any, **more: Any) -> None:
        check(*given, **more)
        write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "before", "text": "all others"}, *items[:60]])

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "check_deletions", meanwhile)
        with pytest.raises(CorpusError, match="the corpus changed while it was read: shard a-"):
            sync(config)
    sync(config)
    assert served_texts(config) == texts_by_id([{"id": "before", "text": "all others"}, *items])


def test_a_file_that_changes_after_it_was_read_is_read_again(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path)
    settled: Callable[..., Any] = embedding.settled

    def meanwhile(*given: Any) -> Any:
        write_jsonl(tmp_path / "corpus" / "b.jsonl", [*items[60:], {"id": "late", "text": "came late"}])
        return settled(*given)

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "settled", meanwhile)
        sync(config)
    report = sync(config)
    assert (report.items.new, report.chunks.embedded) == (1, 1)
    assert served_texts(config) == texts_by_id([*items, {"id": "late", "text": "came late"}])


# Hands of others on the collection


def test_rows_that_somebody_changed_are_found_and_mended(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, batch_rows=16)
    name = sync(config).collection
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection(name)
        [row] = connection.client.query(name, filter='id == "item-7#0"', output_fields=["*"])
        connection.client.upsert(name, [{**row, "id": "stranger#0"}, {**row, "id": "item-8#0", "content_hash": "x"}])
        connection.client.delete(name, filter='id in ["item-7#0", "item-9#0"]')
        connection.client.flush(name)
    with pytest.raises(GateError, match=r"2 rows missing.*1 rows unexpected.*1 rows stale.*verify --repair"):
        sync(config)
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "vecbeam.yaml"), "--repair", "--json"])
    report = json.loads(done.stdout)
    assert (done.exit_code, report["chunks"]["deleted"]) == (0, 1)
    wanted = {
        "expected": 100,
        "found": 100,
        "missing": 0,
        "unexpected": 0,
        "stale": 0,
        "damaged": 0,
        "columns": {},
        "compared": "all columns",
        "published": True,
    }
    assert report["verify"] | wanted == report["verify"]
    assert served_texts(config) == texts_by_id(items)
    assert sync(config).chunks.loaded == 0


def test_an_alias_that_somebody_moved_to_a_collection_of_his_own(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    with milvus.connected(config.collection) as connection:
        connection.client.create_collection("foreign", dimension=8)
        connection.client.alter_alias("foreign", "tested")
    with pytest.raises(CollectionError, match=r"points to foreign, which vecbeam did not create"):
        sync(config)


def test_another_model_is_refused_with_what_differs(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    sync(configure(tmp_path))
    other = configure(tmp_path, encoder={"model": "fake", "dimensions": 16})
    for command in (lambda config: search(config, "x"), verify):
        with pytest.raises(
            SpaceMismatchError, match=r"space [0-9a-f]{16}.*space [0-9a-f]{16}.*dimensions: 16 here, 32"
        ):
            command(other)


# The checkpoint damaged


@pytest.mark.parametrize("damage", ["cut", "gone", "items gone"])
def test_a_part_that_is_damaged_is_made_again(tmp_path: Path, items: list[dict[str, Any]], damage: str) -> None:
    config = configure(tmp_path, batch_rows=10)
    sync(config)
    [folder] = (tmp_path / "checkpoint" / "tested").glob("*/items" if damage == "items gone" else "*/parts")
    part = sorted(folder.iterdir())[2]
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:100])
    else:
        part.unlink()
    del items[25]  # its old row is not to be known from the part any more
    write_two(tmp_path, items, 60)
    report = sync(config)
    assert report.chunks.embedded in (9, 10)
    assert served_texts(config) == texts_by_id(items)
    assert sync(config).chunks.embedded == 0


def test_a_snapshot_of_a_later_version(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    [snapshot] = (tmp_path / "checkpoint" / "tested" / "snapshots").iterdir()
    table = pq.read_table(snapshot)
    facts = json.loads(table.schema.metadata[b"vecbeam"]) | {"schema_version": 99}
    pq.write_table(table.replace_schema_metadata({b"vecbeam": json.dumps(facts).encode()}), snapshot)
    with pytest.raises(CheckpointError, match=r"is of schema version 99, this vecbeam reads up to 1"):
        sync(config)


def test_many_small_parts_are_merged(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "MANY", 4)
    config = configure(tmp_path, batch_rows=20)
    sync(config)
    counts = []
    for number in range(6):
        items[number * 3]["text"] = f"edit number {number}"
        write_two(tmp_path, items, 60)
        report = sync(config)
        assert (report.chunks.embedded, report.chunks.loaded) == (1, 1)
        [snapshot] = sorted((tmp_path / "checkpoint" / "tested" / "snapshots").iterdir())[-1:]
        counts.append(pq.read_table(snapshot).num_rows)
    assert max(counts) == 9
    assert counts[-1] < 8
    assert served_texts(config) == texts_by_id(items)
    assert verify(config).verify.found == 100
