"""`vecbeam sync` after others changed the collection or the checkpoint, or a sync broke off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, texts_by_id, write_two
from run_results import served_texts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.errors import CollectionError, GateError
from transforms import milvus
from transforms.load.upsert_parts import Ledger

pytestmark = pytest.mark.usefixtures("lite_released")

Record = dict[str, Any]


def test_an_alias_moved_back_to_an_older_collection(tmp_path: Path, items: list[Record]) -> None:
    config = configure(tmp_path)
    first = backfill(config).collection
    items[3]["text"] = "edited"
    write_two(tmp_path, items)
    second = backfill(config).collection
    assert second != first
    with milvus.connected(config.collection) as connection:
        connection.client.alter_alias(first, "tested")
    items[4]["text"] = "edited as well"
    write_two(tmp_path, items)
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
    write_two(tmp_path, items)
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
    write_two(tmp_path, items)

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
            write_two(tmp_path, items)
        sync(config)
    assert served_texts(config) == texts_by_id(items)
    assert verify(config).verify.found == len(items)


def test_the_whole_checkpoint_is_gone(tmp_path: Path, items: list[Record]) -> None:
    import shutil

    config = configure(tmp_path)
    name = sync(config).collection
    shutil.rmtree(tmp_path / "checkpoint")
    del items[5]
    items[6]["text"] = "edited"
    write_two(tmp_path, items)
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
    write_two(tmp_path, items)
    done = CliRunner().invoke(app, ["sync", str(tmp_path / "vecbeam.yaml"), "--quiet"])
    assert (done.exit_code, "Traceback" in done.stderr) == (1, False)
    assert f"can't read {damaged}" in " ".join(done.stderr.split())
    assert "delete that file and run the same command again" in " ".join(done.stderr.split())
    damaged.unlink()
    sync(config)
    assert served_texts(config) == texts_by_id(items)
