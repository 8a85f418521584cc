"""`vecbeam backfill` on a temporary folder, with the fake encoder and Milvus Lite."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, text, texts_by_id, write_jsonl, write_two
from run_results import checkpoint_files, served_rows, served_texts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.verify import verify
from schemas.errors import CollectionError, CorpusError, GateError, RejectsError, SpaceMismatchError
from transforms import milvus

pytestmark = pytest.mark.usefixtures("lite_released")


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    found = [{"id": f"item-{number}", "text": text(number)} for number in range(100)]
    write_two(tmp_path, found, 60)
    return found


def parts_of(folder: Path) -> list[dict[str, Any]]:
    return [
        row for file in sorted(folder.glob("checkpoint/tested/*/parts/*")) for row in pq.read_table(file).to_pylist()
    ]


def rejects_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("checkpoint/tested/*/rejects/*"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_from_corpus_to_served_collection(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, batch_rows=16)
    report = backfill(config)

    rows = served_rows(config)
    assert sorted(rows) == sorted(f"{item['id']}#0" for item in items)
    stored = {row["id"]: row for row in parts_of(tmp_path)}
    for row_id, row in rows.items():
        part = stored[row_id]
        assert (row["text"], row["content_hash"], row["item_id"]) == (
            part["text"],
            part["content_hash"],
            part["item_id"],
        )
        assert [float(v) for v in row["vector"]] == part["vector"]
    assert report.balance() == []
    assert (report.items.read, report.items.new, report.chunks.embedded, report.chunks.loaded) == (100, 100, 100, 100)
    assert (report.verify.found, report.verify.recall_at_10, report.verify.published) == (100, 1.0, True)
    assert report.runtime["engine"] == "fake"
    assert search(config, text(42), k=1)[0]["item_id"] == "item-42"


def test_twice_is_once(tmp_path: Path, items: list[dict[str, Any]], milvus_writes: list[str]) -> None:
    config = configure(tmp_path)
    backfill(config)
    before = checkpoint_files(tmp_path)
    milvus_writes.clear()
    report = backfill(config)

    assert milvus_writes == []
    assert checkpoint_files(tmp_path) == before
    assert (report.items.read, report.items.unchanged, report.items.new) == (100, 100, 0)
    assert (report.chunks.embedded, report.chunks.loaded, report.tokens.embedded, report.bytes.read) == (0, 0, 0, 0)
    assert report.verify.published


def test_a_large_load_of_lite_is_flushed_on_the_way(
    tmp_path: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymilvus import MilvusClient

    flushes: list[str] = []
    flush = MilvusClient.flush
    monkeypatch.setattr(MilvusClient, "flush", lambda *a, **k: (flushes.append(a[1]), flush(*a, **k))[1])
    config = configure(tmp_path, batch_rows=20)
    assert backfill(config).verify.found == 100
    assert len(flushes) == 1

    monkeypatch.setattr("transforms.milvus.index_build.LITE_AT_ONCE_BYTES", 0)
    monkeypatch.setattr("transforms.milvus.index_build.LITE_FLUSH_BYTES", 10_000)
    (tmp_path / "milvus.db").rename(tmp_path / "away.db")
    milvus.release(config.collection)
    flushes.clear()
    report = backfill(config)
    assert (report.verify.found, report.verify.missing, report.chunks.loaded) == (100, 0, 100)
    assert len(flushes) > 2
    assert served_texts(config) == texts_by_id(items)


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_beam_s_own_workers_find_one_writer_at_lite(tmp_path: Path, items: list[dict[str, Any]], mode: str) -> None:
    alone = configure(tmp_path, checkpoint="alone", collection={"uri": "./alone.db"}, batch_rows=10)
    backfill(alone)
    milvus.release(alone.collection)
    config = configure(tmp_path, runner={"direct_running_mode": mode, "direct_num_workers": 2}, batch_rows=10)
    report = backfill(config)
    assert (report.chunks.embedded, report.verify.found, report.verify.published) == (100, 100, True)
    assert max(value for step, value in report.seconds if step != "total") < report.seconds.total
    names = [
        sorted(part.name for part in (tmp_path / folder).glob("tested/*/parts/*")) for folder in ("alone", "checkpoint")
    ]
    assert names[0] == names[1]
    assert set(served_rows(config)) == {f"{item['id']}#0" for item in items}


def test_a_touched_file_is_read_and_not_embedded(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    backfill(config)
    os.utime(tmp_path / "corpus" / "a.jsonl", (1, 1))
    report = backfill(config)
    assert (report.chunks.embedded, report.chunks.loaded) == (0, 0)
    assert report.bytes.read > 0


def test_an_edited_corpus_gets_a_collection_beside(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, batch_rows=10)
    first = backfill(config)
    items[3]["text"] = "something else altogether"
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:60])
    second = backfill(config)

    assert second.collection != first.collection
    assert second.chunks.embedded == 1
    assert "something else altogether" in served_texts(config).values()
    with milvus.connected(config.collection) as connection:
        assert set(connection.client.list_collections()) == {first.collection, second.collection}
        assert milvus.served(connection, "tested") == second.collection


@pytest.mark.parametrize("damage", ["deleted", "emptied"])
def test_a_lost_part_is_embedded_again(tmp_path: Path, items: list[dict[str, Any]], damage: str) -> None:
    config = configure(tmp_path, batch_rows=10)
    backfill(config)
    before = parts_of(tmp_path)
    part = sorted(tmp_path.glob("checkpoint/tested/*/parts/*"))[2]
    if damage == "emptied":
        part.write_bytes(b"")
    else:
        part.unlink()
    report = backfill(config)
    assert report.chunks.embedded == 10
    assert sorted(parts_of(tmp_path), key=itemgetter("id")) == sorted(before, key=itemgetter("id"))
    assert backfill(config).chunks.embedded == 0


def test_a_part_whose_file_of_items_was_lost_does_not_exist(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, chunk={"max_tokens": 8, "overlap_tokens": 2})
    backfill(config)
    before = served_rows(config)
    lost = list(tmp_path.glob("checkpoint/tested/*/items/*"))
    assert lost
    reindex(configure(tmp_path, chunk={"max_tokens": 16, "overlap_tokens": 2}))
    for file in lost:
        file.unlink()
    # The parts are those of the first run, by their names; what belongs to them is missing.
    reindex(configure(tmp_path, chunk={"max_tokens": 8, "overlap_tokens": 2}))
    assert served_rows(config) == before
    assert {file.name for file in lost} <= {file.name for file in tmp_path.glob("checkpoint/tested/*/items/*")}


def test_a_thousand_bad_records_among_ten_thousand_good_ones(tmp_path: Path) -> None:
    good = [json.dumps({"id": f"good-{n}", "text": text(n), "year": n}).encode() for n in range(10_000)]
    kinds = {
        "InvalidJson": lambda n: b'{"id": "bad-%d", "text": ' % n,
        "MissingField": lambda n: b'{"id": "bad-%d", "year": 1}' % n,
        "WrongType": lambda n: b'{"id": "bad-%d", "text": 7}' % n,
        "EmptyText": lambda n: b'{"id": "bad-%d", "text": " \\n "}' % n,
        "NulByte": lambda n: b'{"id": "bad-%d", "text": "a\\u0000b"}' % n,
        "InvalidUtf8": lambda n: b'{"id": "bad-%d", "text": "\xff\xfe"}' % n,
        "MetadataType": lambda n: b'{"id": "bad-%d", "text": "fine", "year": "last"}' % n,
        "IdTooLong": lambda n: b'{"id": "%s-%d", "text": "fine"}' % (b"x" * 600, n),
    }
    bad = [(name, make(n)) for n in range(125) for name, make in kinds.items()]
    lines = good + [line for _, line in bad]
    random.Random(0).shuffle(lines)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    config = configure(tmp_path, corpus={"paths": ["corpus/*"], "metadata": {"year": "int"}, "shard_bytes": 100_000})

    with pytest.raises(RejectsError, match=r"1000 of 11000 items were rejected, verify.max_rejected allows 1.00%"):
        backfill(config)

    with milvus.connected(config.collection) as connection:
        name = milvus.served(connection, "tested")
        connection.client.load_collection(name)
        assert milvus.count(connection, name) == 10_000
    found = rejects_of(tmp_path)
    assert {kind: sum(r["error"] == kind for r in found) for kind in kinds} == dict.fromkeys(kinds, 125)
    assert len(found) == 1000
    assert all(row["uri"].endswith("a.jsonl") and row["place"] and row["reason"] for row in found)


@pytest.mark.parametrize(
    ("name", "content", "error", "code"),
    [
        ("cut.jsonl.gz", gzip.compress(b'{"id": "z", "text": "cut off"}')[:-12], "DamagedFile", 4),
        ("cut.jsonl.bz2", bz2.compress(b"x" * 100)[:-9], "DamagedFile", 4),
        ("cut.parquet", b"PAR1 and then nothing", "DamagedFile", 4),
        ("none.pdf", b"this is not a PDF", "InvalidPdf", 0),
        ("empty.txt", b"", "EmptyText", 0),
        ("binary.txt", b"\xff\xfe\x00", "InvalidEncoding", 0),  # the mark of UTF-16, and half a letter
        ("latin.txt", b"caf\xe9", "InvalidUtf8", 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_files_cost_themselves_alone(
    tmp_path: Path, items: list[dict[str, Any]], name: str, content: bytes, error: str, code: int
) -> None:
    (tmp_path / "corpus" / name).write_bytes(content)
    config = configure(tmp_path)
    if code:
        with pytest.raises(RejectsError) as refused:
            backfill(config)
        report = refused.value.report
    else:
        report = backfill(config)

    assert report.exit_code == code
    assert report.rejects == {error: 1}
    assert report.balance() == []
    assert len(served_rows(config)) == 100


def test_parquet_of_another_schema(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    pq.write_table(pa.table({"key": ["1"], "body": ["x"]}), tmp_path / "corpus" / "c.parquet")
    with pytest.raises(RejectsError, match="WrongSchema"):
        backfill(configure(tmp_path))
    (reject,) = rejects_of(tmp_path)
    assert "key" in reject["reason"]


@pytest.mark.parametrize(("policy", "kept"), [("first", "the first"), ("last", "the last")])
def test_duplicates_follow_the_policy(tmp_path: Path, policy: str, kept: str) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "x", "text": "the first"}, {"id": "y", "text": "other"}])
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": "x", "text": "the last"}])
    with pytest.raises(CorpusError, match=r"'x' at .*a.jsonl line 1 and .*b.jsonl line 1") as refused:
        backfill(configure(tmp_path))
    assert refused.value.report.chunks.embedded == 0

    config = configure(tmp_path, corpus={"paths": ["corpus/*"], "on_duplicate": policy})
    report = backfill(config)
    assert served_texts(config) == {"x": kept, "y": "other"}
    assert (report.exit_code, report.rejects, report.balance()) == (0, {"DuplicateId": 1}, [])


def test_a_failed_gate_publishes_nothing(tmp_path: Path) -> None:
    generator = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    records = [
        {"id": str(n), "text": " ".join("".join(generator.choices(letters, k=6)) for _ in range(3))}
        for n in range(3000)
    ]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    bad = {"uri": "./milvus.db", "index": {"type": "IVF_FLAT", "nlist": 256}, "search": {"nprobe": 1}}
    with pytest.raises(GateError, match=r"recall@10 is 0\.\d+, verify.recall_at_10 is 0.95") as refused:
        backfill(configure(tmp_path, collection=bad))
    assert refused.value.exit_code == 3
    assert not refused.value.report.verify.published
    with pytest.raises(CollectionError, match="serves nothing"):
        search(configure(tmp_path), "anything")

    good = backfill(configure(tmp_path))
    with pytest.raises(GateError):
        backfill(configure(tmp_path, collection=bad))
    with milvus.connected(configure(tmp_path).collection) as connection:
        assert milvus.served(connection, "tested") == good.collection


def test_rows_that_somebody_deleted_are_found_and_brought_back(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    report = backfill(config)
    with milvus.connected(config.collection) as connection:
        connection.client.delete(report.collection, ids=["item-7#0", "item-9#0"])
    with pytest.raises(GateError, match="2 rows missing"):
        verify(config)
    assert backfill(config).verify.missing == 0
    assert verify(config).verify.found == 100


def test_another_space_is_refused_with_both_fingerprints(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    report = backfill(configure(tmp_path))
    other = configure(tmp_path, encoder={"model": "fake", "dimensions": 16})
    with pytest.raises(SpaceMismatchError) as refused:
        search(other, "anything")
    assert report.space in str(refused.value)
    assert str(refused.value).count("of space") == 2


def test_a_collection_under_the_alias_name_is_refused(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    with milvus.connected(config.collection) as connection:
        connection.client.create_collection("tested", dimension=4)
    with pytest.raises(CollectionError, match="a collection named 'tested'"):
        backfill(config)
    assert parts_of(tmp_path) == []


def test_dropped_tokens_are_counted_and_bounded(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "corpus" / "a.jsonl", [{"id": "long", "text": "word " * 300}, {"id": "short", "text": "word"}]
    )
    with pytest.raises(RejectsError, match=r"44 of 301 tokens were dropped") as refused:
        backfill(configure(tmp_path, chunk=False))
    assert refused.value.report.tokens.dropped == 44
    whole = backfill(configure(tmp_path))
    assert (whole.tokens.dropped, whole.chunks.embedded) == (0, 2)


def test_odd_ids_and_a_text_of_five_megabytes(tmp_path: Path) -> None:
    ids = ['say "hi"', "back\\slash", "it's", "new\nline", "東京 🚢", "a#0", "{}[]%$"]
    book = {"id": "book", "text": "\n".join(text(number) for number in range(180_000))}
    assert len(book["text"]) > 5_000_000
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [*({"id": i, "text": text(n)} for n, i in enumerate(ids)), book])
    config = configure(tmp_path, chunk={"max_tokens": 256, "overlap_tokens": 0})
    report = backfill(config)

    assert (report.items.new, report.items.rejected, report.tokens.dropped) == (8, 0, 0)
    assert report.verify.found == report.verify.expected == report.chunks.loaded
    rows = parts_of(tmp_path)
    assert {row["item_id"] for row in rows} == {*ids, "book"}
    chunks = [row for row in rows if row["item_id"] == "book"]
    assert " ".join(row["text"] for row in chunks).split() == book["text"].split()
    assert all(book["text"][row["start"] : row["end"]] == row["text"] for row in chunks)


def test_the_command_line(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    configure(tmp_path)
    path = str(tmp_path / "vecbeam.yaml")
    runner = CliRunner()

    done = runner.invoke(app, ["backfill", path, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["verify"]["found"] == 100
    assert "embed" in done.stderr

    found = runner.invoke(app, ["search", path, text(5), "-k", "2", "--json"])
    assert json.loads(found.stdout)["hits"][0]["id"] == "item-5#0"
    only = runner.invoke(app, ["search", path, text(5), "--filter", 'item_id == "item-9"', "--json"])
    assert [hit["item_id"] for hit in json.loads(only.stdout)["hits"]] == ["item-9"]
    wrong = runner.invoke(app, ["search", path, "x", "--filter", "no such =="])
    assert (wrong.exit_code, "no such ==" in wrong.stderr, "Traceback" in wrong.stderr) == (2, True, False)

    refused = runner.invoke(app, ["backfill", path, "--set", "corpus.paths=[nothing/*.jsonl]"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "nothing/*.jsonl" in refused.stderr
    assert runner.invoke(app, ["verify", path, "--quiet"]).exit_code == 0
    assert "100 read" in runner.invoke(app, ["report", path]).stdout
    assert runner.invoke(app, ["load", path, "--quiet"]).exit_code == 0


def test_init_writes_a_configuration_that_runs(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    runner = CliRunner()
    path = tmp_path / "made.yaml"
    made = runner.invoke(app, ["init", str(tmp_path / "corpus"), "--output", str(path), "--name", "made"])
    assert made.exit_code == 0, made.stderr
    done = runner.invoke(app, ["backfill", str(path), "--set", "encoder.model=fake", "--json", "--quiet"])
    assert json.loads(done.stdout)["items"]["new"] == 100
    assert runner.invoke(app, ["init", str(tmp_path / "corpus"), "--output", str(path)]).exit_code == 2


def test_what_is_over_the_stored_length_of_a_text_is_counted_as_dropped(tmp_path: Path) -> None:
    # 100,000 bytes, of which Milvus stores 65,535; the encoder takes 256 words.
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "long", "text": "word " * 20_000}])
    report = backfill(configure(tmp_path, chunk=False, verify={"max_dropped_tokens": 1.0}))
    assert (report.tokens.embedded, report.tokens.dropped) == (256, 20_000 - 256)
