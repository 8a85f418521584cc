"""Where a GPU or a server embeds, the pipeline reads and chunks the next batches meanwhile."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure

from pipelines.backfill import backfill
from schemas.errors import VecbeamError
from schemas.run_report import Report
from transforms.chunk.text import TextChunker
from transforms.encoders.fake import FakeEncoder

ITEMS, BATCH = 65, 10
PATIENCE_S = 30.0

_chunk, _encode = TextChunker.chunk, FakeEncoder.encode


def run(folder: Path) -> Report:
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"id": f"{at:02}", "text": f"item {at}"}) for at in range(ITEMS))
    (folder / "corpus" / "a.jsonl").write_text("\n".join(lines))
    return backfill(configure(folder, encoder={"model": "fake"}, batch_rows=BATCH))


def parts(folder: Path) -> dict[str, pa.Table]:
    return {file.name: pq.read_table(file) for file in folder.glob("checkpoint/**/parts/*.parquet")}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"engine": "fake", "device": "elsewhere", "precision": "float32"}
    monkeypatch.setattr(FakeEncoder, "runtime", lambda _: facts)


def test_the_next_batch_is_chunked_before_the_last_one_has_vectors(
    tmp_path: Path, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunked, third = list[int](), threading.Event()

    def chunk(self: TextChunker, items: pa.Table) -> Any:
        chunked.append(items.num_rows)
        if len(chunked) == 3:
            third.set()
        return _chunk(self, items)

    def encode(self: FakeEncoder, inputs: pa.Table, **options: Any) -> Any:
        assert third.wait(PATIENCE_S), "the pipeline waits for the vectors of a batch before it chunks the next one"
        return _encode(self, inputs, **options)

    monkeypatch.setattr(TextChunker, "chunk", chunk)
    monkeypatch.setattr(FakeEncoder, "encode", encode)
    report = run(tmp_path / "ahead")
    assert report.chunks.loaded == ITEMS


def test_parts_and_counts_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    plain = run(tmp_path / "plain")
    request.getfixturevalue("elsewhere")
    ahead = run(tmp_path / "ahead")
    before, after = parts(tmp_path / "plain"), parts(tmp_path / "ahead")
    assert before.keys() == after.keys()
    assert len(before) == -(-ITEMS // BATCH)
    assert all(before[name].equals(after[name]) for name in before)
    for kind in ("items", "chunks", "tokens", "rejects"):
        assert getattr(plain, kind) == getattr(ahead, kind)
    assert ahead.seconds.embed > 0


def test_an_error_of_the_encoder_ends_the_run_and_the_same_command_continues(
    tmp_path: Path, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()

    def encode(self: FakeEncoder, inputs: pa.Table, **options: Any) -> Any:
        calls.append(inputs.num_rows)
        if len(calls) > 3:
            raise VecbeamError("the device is gone", "attach it")
        return _encode(self, inputs, **options)

    monkeypatch.setattr(FakeEncoder, "encode", encode)
    with pytest.raises(VecbeamError, match="the device is gone"):
        run(tmp_path / "ahead")
    done = len(parts(tmp_path / "ahead"))
    monkeypatch.setattr(FakeEncoder, "encode", _encode)
    report = run(tmp_path / "ahead")
    assert report.chunks.loaded == ITEMS
    assert report.chunks.embedded == ITEMS - done * BATCH
