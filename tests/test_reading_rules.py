"""After an upgrade what is read otherwise is read again, once, and nothing is embedded that is the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl

from pipelines.backfill import backfill
from pipelines.steps.corpus.corpus_digests import read_by_first_rules
from pipelines.steps.corpus.source import prepare
from pipelines.sync import sync
from schemas.config import Config
from transforms import milvus
from transforms.read.formats.documents import html
from transforms.read.listing import upgrade

pytestmark = pytest.mark.usefixtures("lite_released")


def texts(config: Config) -> dict[str, str]:
    with milvus.connected(config.collection) as connection:
        connection.client.load_collection(milvus.served(connection, config.name))
        rows = connection.client.query(config.name, filter='id != ""', limit=16384, output_fields=["id", "text"])
    return {row["id"]: row["text"] for row in rows}


def read_as_before(monkeypatch: pytest.MonkeyPatch, **read: Any) -> None:
    monkeypatch.setattr(upgrade, "is_read_by_later_rules", lambda *_: False)
    for name, function in read.items():
        monkeypatch.setattr(html, name, function)


def test_pages_are_read_again_after_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.html").write_bytes("<html><body><p>journée très agréable</p></body></html>".encode("cp1252"))
    (folder / "b.html").write_text("<html><body><p>A page that is read as before.</p></body></html>")
    (folder / "c.txt").write_text("A text that is not looked at.")
    config = configure(tmp_path, corpus={"paths": [f"{folder}/*"]})
    with monkeypatch.context() as before:
        read_as_before(before, decoded=lambda data, _: data.decode("cp1250"))
        backfill(config)
        base = prepare(config).checkpoint.current_snapshot()
    assert base is not None
    assert read_by_first_rules(base)
    assert "très" not in texts(config)["a.html#0"]
    report = sync(config)
    assert (report.items.read, report.items.changed, report.chunks.embedded) == (3, 1, 1)
    assert texts(config)["a.html#0"] == "journée très agréable"
    snapshot = prepare(config).checkpoint.current_snapshot()
    assert snapshot is not None
    assert not read_by_first_rules(snapshot)
    assert sync(config).chunks.embedded == 0
    again = prepare(config).checkpoint.current_snapshot()
    assert again is not None
    assert again.name == snapshot.name


def test_a_corpus_that_is_read_as_before_is_unchanged_after_an_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"r{n}", "text": text(n)} for n in range(20)])
    config = configure(tmp_path, corpus={"paths": [f"{tmp_path}/corpus/*.jsonl"]})
    with monkeypatch.context() as before:
        read_as_before(before)
        backfill(config)
        digest = prepare(config).corpus_digest
    assert prepare(config).corpus_digest == digest


def test_an_empty_part_is_no_reject_and_leaves_no_exit_code(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"r{n}", "text": text(n)} for n in range(20)])
    (tmp_path / "corpus" / "b.jsonl").write_bytes(b"")
    config = configure(tmp_path, corpus={"paths": [f"{tmp_path}/corpus/*.jsonl"]})
    assert backfill(config).rejects == {}
    os.truncate(tmp_path / "corpus" / "b.jsonl", 0)
    assert sync(config).rejects == {}
