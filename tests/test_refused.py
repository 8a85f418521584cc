"""A run that is refused changes nothing that matters: what is served, what is current, what a repair restores."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.gc import gc
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, GateError, RejectsError, VecbeamError
from schemas.run_report import Report
from transforms import milvus
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.encoders import resolve

pytestmark = pytest.mark.usefixtures("lite_released")

Record = dict[str, Any]


@pytest.fixture
def items(tmp_path: Path) -> list[Record]:
    found = [{"id": f"item-{number}", "text": text(number), "note": "n"} for number in range(40)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", found)
    return found


def rows(config: Config) -> dict[str, str]:
    """Row id to text of all that is served."""
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection(milvus.served(connection, config.name))
        found = connection.client.query(config.name, filter='id != ""', limit=16384, output_fields=["id", "text"])
    return {row["id"]: row["text"] for row in found}


def checkpoint_of(config: Config) -> Checkpoint:
    return Checkpoint(config.checkpoint, config.name, resolve(config.encoder).space.id)


def current(config: Config) -> Snapshot:
    found = checkpoint_of(config).current_snapshot()
    assert found is not None
    return found


def with_set(folder: Path, *overrides: str) -> Config:
    return load_config(folder / "vecbeam.yaml", overrides)


def test_a_field_that_no_record_has(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    before, was = rows(config), current(config).name
    wrong = with_set(tmp_path, "corpus.content=[body]")
    for command in (plan, sync, backfill, reindex):
        for allow in (False, True):
            with pytest.raises(
                ConfigurationError, match=r"corpus\.content: no record has 'body'; they have id, text, note"
            ):
                command(wrong, allow_deletes=allow)
    with pytest.raises(ConfigurationError, match=r"corpus\.id: no record has 'key'"):
        sync(with_set(tmp_path, "corpus.id=key"))
    assert (rows(config), current(config).name) == (before, was)
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "vecbeam.yaml"), "--set", "corpus.content=[body]"])
    assert done.exit_code == 2
    assert verify(config).verify.found == verify(config, repair=True).verify.found == 40


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_column_that_no_file_has(tmp_path: Path, items: list[Record], format: str) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    (tmp_path / "corpus" / "a.jsonl").unlink()
    write = pyarrow.csv.write_csv if format == "csv" else pyarrow.parquet.write_table
    write(pa.Table.from_pylist(items), tmp_path / "corpus" / f"a.{format}")
    config = configure(tmp_path)
    sync(config)
    with pytest.raises(ConfigurationError, match=r"corpus\.content: no record has 'body'; they have id, text, note"):
        sync(with_set(tmp_path, "corpus.content=[body]"), allow_deletes=True)
    assert len(rows(config)) == 40


def test_a_field_that_some_records_have_is_no_deletion(tmp_path: Path, items: list[Record]) -> None:
    for item in items[4:]:
        del item["note"]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    config = configure(tmp_path)
    sync(config)
    wrong = with_set(tmp_path, "corpus.content=[note]")
    with pytest.raises(GateError, match=r"36 records were rejected \(36 MissingField\)") as refused:
        sync(wrong)
    assert "--allow-deletes" not in str(refused.value)
    with pytest.raises(RejectsError, match=r"36 of 40 items were rejected.*stays as it is") as over:
        sync(wrong, allow_deletes=True)
    assert "or raise" not in str(over.value)
    assert verify(config, repair=True).verify.found == len(rows(config)) == 40


def test_rejects_over_the_limit_leave_the_snapshot(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    before, was = rows(config), current(config).name
    for item in items[:3]:
        item["text"] = 7
    items.append({"id": "late", "text": "came later"})
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    for command in (sync, backfill, partial(reindex, full_refresh=True)):
        with pytest.raises(RejectsError, match=r"3 of 41 items were rejected"):
            command(config)
        assert (rows(config), current(config).name) == (before, was)
    found = verify(config)
    assert (found.verify.expected, found.verify.found) == (40, 40)
    assert any("3 of 41 items were rejected" in warning for warning in found.warnings)
    verify(config, repair=True)
    load(config)
    assert rows(config) == before


def test_dropped_tokens_over_the_limit_leave_the_snapshot(tmp_path: Path) -> None:
    long = [
        {"id": f"long-{number}", "text": " ".join(text(number + more) for more in range(12))} for number in range(8)
    ]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", long)
    encoder = {"model": "fake", "dimensions": 32, "max_tokens": 24}
    config = configure(tmp_path, chunk={"max_tokens": 24, "overlap_tokens": 4}, encoder=encoder)
    sync(config)
    before, was = rows(config), current(config).name
    assert len(before) > len(long)
    for command in (reindex, backfill):
        with pytest.raises(RejectsError, match="tokens were dropped"):
            command(with_set(tmp_path, "chunk=false"))
    assert current(config).name == was
    verify(config)
    verify(config, repair=True)
    assert rows(config) == before


def test_the_parts_of_a_refused_run_are_found_again(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path, batch_rows=16)
    sync(config)
    more = [{"id": f"more-{number}", "text": text(100 + number)} for number in range(30)]
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [*more, *({"id": f"bad-{number}", "text": 7} for number in range(5))])
    with pytest.raises(RejectsError):
        sync(config)
    assert not gc(config).files  # they are not garbage
    write_jsonl(tmp_path / "corpus" / "b.jsonl", more)
    report = sync(config)
    assert (report.items.new, report.chunks.embedded, report.chunks.loaded) == (30, 0, 30)
    assert checkpoint_of(config).refused_snapshot() is None
    assert verify(config).warnings == []


def test_a_first_run_over_the_limits_is_served_and_says_so(tmp_path: Path, items: list[Record]) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [*items, {"id": "bad", "text": 7}])
    config = configure(tmp_path)
    with pytest.raises(RejectsError, match="the good rows are published as tested"):
        backfill(config)
    assert len(rows(config)) == 40
    with milvus.connected(config.collection) as connection:
        connection.client.delete(config.name, filter='id == "item-3#0"')
    with pytest.raises(GateError, match="1 rows missing"):
        verify(config)
    with pytest.raises(RejectsError, match=r"1 of 41 items were rejected.*the good rows are served"):
        verify(config, repair=True)
    assert len(rows(config)) == 40


def test_a_snapshot_without_rows_is_never_published(tmp_path: Path, items: list[Record]) -> None:
    """As version 0.1.0 left it behind: the newest snapshot holds nothing."""
    config = configure(tmp_path)
    sync(config)
    before, snapshot, checkpoint = rows(config), current(config), checkpoint_of(config)
    empty = snapshot.parts.schema.empty_table()
    draft, _ = checkpoint.draft_snapshot(empty, snapshot.files, "0" * 32, "1" * 32)  # of other fields
    checkpoint.write_snapshot(draft)
    found = verify(config)
    assert (found.verify.expected, found.verify.found) == (40, 40)
    assert any("a newer snapshot with 0 rows is not published" in warning for warning in found.warnings)
    assert verify(config, repair=True).verify.found == 40
    with pytest.raises(GateError, match="has no rows"):
        load(config)
    assert rows(config) == before
    assert sync(config).verify.published
    assert rows(config) == before


def test_a_corpus_that_shrank_is_noticed_by_another_model_too(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:10])
    other = configure(tmp_path, encoder={"model": "fake", "dimensions": 16})
    for command in (backfill, reindex):
        with pytest.raises(GateError, match=r"30 of 40 items of tested_\w+ would be served no longer"):
            command(other)
    assert checkpoint_of(other).current_snapshot() is None
    assert len(rows(config)) == 40
    assert reindex(other, allow_deletes=True).verify.found == 10


def test_a_checkpoint_that_lost_the_newest_snapshot_takes_no_row_away(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    sync(config)
    items.append({"id": "late", "text": "came later"})
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    sync(config)
    (tmp_path / "checkpoint" / "tested" / "snapshots" / current(config).name).unlink()
    flat = configure(tmp_path, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}})
    for command, given in ((load, config), (partial(load, rebuild=True), config), (reindex, flat)):
        with pytest.raises(GateError, match=r"serves 41 rows of a snapshot that the checkpoint does not have.*has 40"):
            command(given)
        assert len(rows(config)) == 41
    report = sync(configure(tmp_path))
    assert (report.chunks.embedded, len(rows(config))) == (0, 41)


def test_an_update_that_was_stopped_is_repaired_forwards(
    tmp_path: Path, items: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path, batch_rows=8)
    sync(config)
    items[1]["text"] = "edited"
    items.append({"id": "late", "text": "came later"})
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    from transforms.load import delta

    def stopped(*_: Any, **__: Any) -> None:
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(delta.milvus, "upsert", stopped)
        with pytest.raises(RuntimeError, match="stopped"):
            sync(config)
    with pytest.raises(GateError, match=r"rows missing.*stale"):
        verify(config)
    assert verify(config, repair=True).verify.found == 41
    assert rows(config)["item-1#0"] == "edited"
    assert sync(config).chunks.loaded == 0


def test_a_repair_obeys_max_deleted(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    name = sync(config).collection
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection(name)
        found = connection.client.query(name, filter='id != ""', limit=100, output_fields=["*"])
        connection.client.upsert(name, [{**row, "id": f"foreign-{row['id']}"} for row in found])
        connection.client.delete(name, filter='id == "item-3#0"')
    with pytest.raises(GateError, match=r"40 of 79 rows of \w+ are not in its snapshot.*stays as it is"):
        verify(config, repair=True)
    assert len(rows(config)) == 79  # nothing was written
    assert verify(config, repair=True, allow_deletes=True).chunks.deleted == 40
    assert len(rows(config)) == 40


def test_books_that_do_not_balance_fail_the_run(
    tmp_path: Path, items: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path)
    monkeypatch.setattr(Report, "balance", lambda _: ["items read 40 is not the sum"])
    for command in (backfill, sync, reindex, load, verify):
        with pytest.raises(VecbeamError, match=r"the books of this run do not balance: items read 40") as failed:
            command(config)
        assert failed.value.exit_code == 1
        assert json.loads(failed.value.report.model_dump_json())["exit_code"] == 1


def test_with_a_lost_part_a_higher_limit_of_rejects_is_not_advised(tmp_path: Path, items: list[Record]) -> None:
    """Which items the part held is not known, so a rejected record may be one that is served."""
    config = configure(tmp_path)
    backfill(config)
    [part] = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    part.unlink()
    for number in range(3):
        items[number]["text"] = ""
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    with pytest.raises(RejectsError) as refused:
        sync(config)
    assert "a higher verify.max_rejected can delete items that are served now" in refused.value.remedy
    assert len(rows(config)) == 40


def test_load_of_a_checkpoint_that_lost_the_served_snapshot_advises_a_look_at_the_corpus(
    tmp_path: Path, items: list[Record]
) -> None:
    config = configure(tmp_path)
    backfill(config)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [*items, {"id": "later", "text": text(99), "note": "n"}])
    sync(config)
    newest = sorted(tmp_path.glob("checkpoint/tested/snapshots/*.parquet"))[-1]
    newest.unlink()
    with pytest.raises(GateError) as refused:
        load(config)
    assert refused.value.remedy == "run vecbeam sync: it reads the corpus, and deletes only what is no longer there"
    assert len(rows(config)) == 41
    sync(config)
    assert len(rows(config)) == 41
