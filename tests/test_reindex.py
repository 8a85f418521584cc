"""`reindex`, `rollback`, `replay` and `gc` on a temporary folder, with the fake encoder and Milvus Lite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, texts_by_id, write_jsonl
from run_results import served_rows, served_texts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.gc import gc
from pipelines.reindex import INDEX, MODEL, NOTHING, ROWS, reindex
from pipelines.replay import replay
from pipelines.rollback import rollback
from pipelines.run.report_text import text as page
from pipelines.search import search
from pipelines.sync import sync
from schemas.config import Config
from schemas.errors import CheckpointError, CollectionError, GateError, RejectsError
from transforms import milvus
from transforms.encoders import fake

pytestmark = pytest.mark.usefixtures("lite_released")

FLAT = {"uri": "./milvus.db", "index": {"type": "FLAT"}}
LESS = {"model": "fake", "dimensions": 16}


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    found = [{"id": f"item-{number}", "text": text(number), "kind": "a"} for number in range(60)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", found)
    return found


def served(config: Config) -> str | None:
    with milvus.connected(config.collection) as connection:
        return milvus.served(connection, config.name)


def collections(config: Config) -> list[str]:
    with milvus.connected(config.collection) as connection:
        return milvus.names(connection)


def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of inputs of each call of the encoder from now on."""
    counts: list[int] = []
    encode = fake.FakeEncoder.encode

    def counting(self: Any, inputs: Any, **given: Any) -> Any:
        counts.append(inputs.num_rows)
        return encode(self, inputs, **given)

    monkeypatch.setattr(fake.FakeEncoder, "encode", counting)
    return counts


def test_another_index_is_built_from_the_checkpoint(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backfill(configure(tmp_path))
    (tmp_path / "corpus" / "a.jsonl").unlink()  # not even looked at
    counts = encoded(monkeypatch)
    config = configure(tmp_path, collection=FLAT)
    report = reindex(config)
    assert (report.reason, counts, report.chunks.embedded, report.chunks.loaded) == (INDEX, [], 0, 60)
    assert collections(config) == sorted([first.collection, report.collection])
    assert served(config) == report.collection != first.collection
    assert reindex(config).chunks.loaded == 0


def test_another_chunking_keeps_the_vectors_of_what_stays_the_same(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    items[0]["text"] = " ".join(text(number) for number in range(30))
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    backfill(configure(tmp_path, chunk={"max_tokens": 20, "overlap_tokens": 0}))
    counts = encoded(monkeypatch)
    config = configure(tmp_path, chunk={"max_tokens": 24, "overlap_tokens": 0})
    report = reindex(config)
    long = [row for row in served_rows(config).values() if row["item_id"] == "item-0"]
    assert report.reason == ROWS
    assert 0 < sum(counts) == report.chunks.embedded <= len(long)
    assert max(row["tokens"] for row in long) > 20
    assert report.balance() == []


def test_fields_added_removed_and_retyped(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, item in enumerate(items):
        item["year"] = number
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    backfill(configure(tmp_path))
    counts = encoded(monkeypatch)
    for metadata in ({"kind": "string", "year": "int"}, {"year": "int"}, {"year": "float"}):
        config = configure(tmp_path, corpus={"paths": ["corpus/*"], "metadata": metadata})
        report = reindex(config)
        assert (report.reason, counts, report.chunks.loaded) == (ROWS, [], 60)
        for row in served_rows(config).values():
            number = int(row["item_id"].removeprefix("item-"))
            wanted = {"kind": "a", "year": float(number) if metadata["year"] == "float" else number}
            assert {name: row[name] for name in metadata} == {name: wanted[name] for name in metadata}
            assert ("kind" in row) == ("kind" in metadata)
    assert search(config, text(7), k=1, filter_expression="year > 6.5 and year < 7.5")[0]["item_id"] == "item-7"


def test_another_model_is_embedded_beside_and_rolled_back(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    first = backfill(configure(tmp_path))
    config = configure(tmp_path, encoder=LESS)
    report = reindex(config)
    assert (report.reason, report.chunks.embedded, served(config)) == (MODEL, 60, report.collection)
    back = rollback(config)
    assert (back.collection, back.verify.found, served(config)) == (first.collection, 60, first.collection)
    assert search(configure(tmp_path), text(7), k=1)[0]["item_id"] == "item-7"
    assert back.served is not None
    assert (back.served.collection, back.served.before) == (first.collection, report.collection)
    assert f"serving   tested -> {first.collection}, before that {report.collection}" in page(back)
    # A second one undoes it.
    assert rollback(config).collection == served(config) == report.collection
    assert rollback(config, to=first.collection).collection == served(config) == first.collection


def test_rollbacks_keep_the_chain_of_collections(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    first = backfill(config).collection
    with pytest.raises(CollectionError, match=f"{first} is the first collection"):
        rollback(config)
    flat = configure(tmp_path, collection=FLAT)
    second = reindex(flat).collection
    third = reindex(configure(tmp_path, encoder=LESS)).collection
    rollback(flat)
    # What was left is the one before, and nothing is lost from sight.
    assert gc(flat, keep=2).kept == [second, third, first]
    rollback(flat)
    assert gc(flat, keep=2).kept == [third, second, first]
    rollback(flat, to=first)
    assert gc(flat, keep=2).kept == [first, third, second]
    # To a collection that exists already, by a command that builds: the same.
    assert backfill(flat).collection == second
    assert gc(flat, keep=2).kept == [second, first, third]
    assert rollback(flat).collection == first
    again = rollback(flat, to=first)
    assert again.served is not None
    assert (again.collection, again.served.moved) == (first, False)


def test_a_rollback_to_a_collection_that_lacks_rows_is_refused(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    first = backfill(configure(tmp_path))
    config = configure(tmp_path, collection=FLAT)
    second = reindex(config)
    with milvus.connected(config.collection) as connection:
        connection.client.delete(first.collection, filter='id == "item-30#0"')
        connection.client.flush(first.collection)
    with pytest.raises(GateError, match=r"holds 59 rows, its snapshot 60.*was not moved"):
        rollback(config)
    assert served(config) == second.collection
    with milvus.connected(config.collection) as connection:
        connection.client.drop_collection(first.collection)
    with pytest.raises(CollectionError, match=r"has no collection "):
        rollback(config)


def test_a_gate_that_fails_leaves_the_alias(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    many = [{"id": f"item-{number}", "text": text(number)} for number in range(3000)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", many)
    first = backfill(configure(tmp_path))
    config = configure(
        tmp_path,
        collection={"uri": "./milvus.db", "index": {"type": "IVF_FLAT", "nlist": 128}, "search": {"nprobe": 1}},
        verify={"recall_at_10": 1.0},
    )
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["reindex", str(tmp_path / "vecbeam.yaml"), "--json"])
    assert done.exit_code == 3
    assert json.loads(done.stdout)["verify"]["recall_at_10"] < 1
    assert served(config) == first.collection


def test_nothing_to_do_is_said(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    first = backfill(config)
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["reindex", str(tmp_path / "vecbeam.yaml")])
    assert done.exit_code == 0
    assert f"changed   {NOTHING}" in done.stdout
    assert "another precision of the encoder needs --full-refresh" in done.stdout
    assert f"serving   tested -> {first.collection}" in done.stdout
    assert "chunks    60 reused\n" in done.stdout
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["reindex", str(tmp_path / "vecbeam.yaml"), "--set", "encoder.precision=bfloat16"])
    assert "made in float32, configured is bfloat16: --full-refresh embeds everything again" in done.stdout


def test_all_is_embedded_again_on_request(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    backfill(config)
    report = reindex(config, full_refresh=True)
    assert (report.chunks.embedded, report.items.new, report.verify.published) == (60, 60, True)
    assert sync(config).chunks.embedded == 0


def test_replay_embeds_what_can_be_embedded_now(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "other", "text": "in another file"}])
    config = configure(tmp_path, verify={"max_rejected": 0.1})
    encode = fake.FakeEncoder.encode

    def failing(self: Any, inputs: Any, **given: Any) -> Any:
        if text(7) in inputs.column("text").to_pylist():
            raise RuntimeError("the device is out of order")
        return encode(self, inputs, **given)

    with monkeypatch.context() as patch:
        patch.setattr(fake.FakeEncoder, "encode", failing)
        report = backfill(config)
    assert (report.rejects, len(served_rows(config))) == ({"EncoderFailed": 1}, 60)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "other", "text": "changed, but without a reject"}])
    counts = encoded(monkeypatch)
    report = replay(config)
    assert (counts, report.items.new, report.chunks.loaded, report.rejects) == ([1], 1, 1, {})
    rows = served_texts(config)
    assert (len(rows), rows["item-7"], rows["other"]) == (61, text(7), "in another file")
    assert replay(config).chunks.loaded == 0
    assert sync(config).items.changed == 1


def test_replay_of_a_line_that_was_mended(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    path = tmp_path / "corpus" / "a.jsonl"
    path.write_text(path.read_text() + '{"id": "late", "text": 7}\n')
    with pytest.raises(RejectsError):
        backfill(configure(tmp_path, verify={"max_rejected": 0.001}))
    path.write_text(path.read_text().replace('"text": 7', '"text": "seven"'))
    report = replay(configure(tmp_path, verify={"max_rejected": 0.001}))
    assert (report.items.new, report.chunks.embedded, report.rejects) == (1, 1, {})
    with pytest.raises(CheckpointError, match=r"made with other settings.*reindex"):
        replay(configure(tmp_path, chunk={"max_tokens": 30, "overlap_tokens": 0}))


def test_gc_lists_and_then_removes_what_nothing_refers_to(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    first = backfill(configure(tmp_path))
    second = reindex(configure(tmp_path, collection=FLAT))
    config = configure(tmp_path, encoder=LESS)
    third = reindex(config)
    leftover = tmp_path / "checkpoint" / "tested" / "runs" / "20200101T000000Z-sync-1" / "diff" / "plan" / "0.parquet"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"of a run that was killed")

    found = gc(config, keep=1)
    assert (found.kept, list(found.collections)) == ([third.collection, second.collection], [first.collection])
    assert (found.snapshots, found.removed, len(collections(config))) == ([], False, 3)
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["gc", str(tmp_path / "vecbeam.yaml"), "--keep", "0", "--yes", "--json"])
    removed = json.loads(done.stdout)
    assert (removed["kept"], removed["removed"]) == ([third.collection], True)
    assert collections(config) == [third.collection]
    root = tmp_path / "checkpoint" / "tested"
    assert [folder.name for folder in root.glob("*/parts")] == ["parts"]
    assert not (root / first.space).exists()
    assert not leftover.exists()
    assert len(list((root / "snapshots").iterdir())) == len(list((root / "files").iterdir())) == 1
    assert (sync(config).chunks.embedded, len(served_rows(config))) == (0, 60)
    assert gc(config, keep=0).as_json()["files"] == 0


@pytest.mark.parametrize("folder", ["snapshots", "files"])
def test_gc_removes_the_half_of_a_snapshot(tmp_path: Path, items: list[dict[str, Any]], folder: str) -> None:
    """What a run or a gc leaves that was killed between the two files of a snapshot."""
    config = configure(tmp_path)
    backfill(config)
    [whole] = (tmp_path / "checkpoint" / "tested" / folder).glob("*.parquet")
    half = whole.with_name(f"000009{whole.name[6:]}")
    shutil.copy(whole, half)
    assert [*gc(config).files] == [str(half)]
    gc(config, yes=True)
    assert not half.exists()
    assert whole.exists()
    assert backfill(config).chunks.embedded == 0


def test_gc_after_syncs_keeps_what_the_current_snapshot_needs(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, batch_rows=10)
    sync(config)
    for number in range(3):
        for item in items[number * 10 : number * 10 + 10]:
            item["text"] += " edited"
        write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
        sync(config)
    found = gc(config, yes=True)
    assert len(found.snapshots) == 3
    assert sum("/parts/" in uri for uri in found.files) == 3
    assert sync(config).chunks.embedded == 0
    assert served_texts(config) == texts_by_id(items)
    assert reindex(configure(tmp_path, batch_rows=10, collection=FLAT)).chunks.loaded == 60
