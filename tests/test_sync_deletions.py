"""What `vecbeam sync` must not take for a deletion: broken files and listings, emptied corpora, refused runs."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, texts_by_id, write_jsonl, write_two
from run_results import checkpoint_files, served_texts

from pipelines.backfill import backfill
from pipelines.load import load
from pipelines.reindex import reindex
from pipelines.steps.corpus import changes
from pipelines.sync import sync
from schemas.errors import CheckpointError, CorpusError, GateError, RejectsError
from transforms import milvus
from transforms.support.storage import filesystem

pytestmark = pytest.mark.usefixtures("lite_released")

Record = dict[str, Any]


def compressed(items: list[Record]) -> bytes:
    return gzip.compress(b"".join(json.dumps(item).encode() + b"\n" for item in items))


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
    write_two(tmp_path, items)
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
    write_two(tmp_path, items)
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
    write_two(tmp_path, items[:39])
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
        write_two(tmp_path, [*items, *bad])
        with pytest.raises(RejectsError, match="stays as it is"):
            sync(config)
        assert served_texts(config) == before
    write_two(tmp_path, items)
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.loaded) == (0, 6)
    assert served_texts(config) == texts_by_id(items)
