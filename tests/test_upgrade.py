"""Data of an earlier release still works: no upgrade makes anyone embed again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, EncoderConfig
from schemas.config.loader import load_config
from transforms.encoders import resolve

RELEASE = Path(__file__).parent / "data" / "release-0.1.0"
MODIFIED = 1767323045  # 2026-01-02T03:04:05Z


@pytest.fixture
def left(tmp_path: Path) -> Config:
    """The folder of a user of 0.1.0."""
    shutil.copytree(RELEASE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "milvus_lite").rename(tmp_path / "milvus.db")
    for file in (tmp_path / "corpus").iterdir():
        os.utime(file, (MODIFIED, MODIFIED))
    return load_config(tmp_path / "vecbeam.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def test_each_command_goes_on_and_embeds_nothing(left: Config, tmp_path: Path) -> None:
    before = files(tmp_path / "checkpoint")
    assert plan(left).action == "nothing"
    report = sync(left)
    assert (report.items.unchanged, report.chunks.embedded, report.chunks.loaded) == (12, 0, 0)
    assert (report.space, report.collection) == ("aa61d449f8e176a8", "kept_aa61d449_cfbe4cfc")
    checked = verify(left).verify
    assert (checked.expected, checked.found, checked.missing, checked.stale, checked.damaged) == (26, 26, 0, 0, 0)
    assert search(left, "quoted and plain", k=3, filter_expression='kind == "csv"')[0]["item_id"].startswith("note-")
    assert load(left).chunks.embedded == 0
    assert files(tmp_path / "checkpoint") == before


def test_another_index_and_an_edit_embed_what_they_must(left: Config, tmp_path: Path) -> None:
    flat = load_config(tmp_path / "vecbeam.yaml", ["collection.index={type: FLAT}"])
    report = reindex(flat)
    assert (report.chunks.embedded, report.chunks.loaded, report.verify.published) == (0, 26, True)
    lines = (tmp_path / "corpus" / "notes.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"title": "another title"}
    (tmp_path / "corpus" / "notes.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    report = sync(flat)
    assert (report.items.changed, report.items.unchanged, report.chunks.embedded) == (1, 11, 1)


def test_a_corpus_that_is_only_touched_is_read_and_not_embedded(left: Config, tmp_path: Path) -> None:
    for file in (tmp_path / "corpus").iterdir():
        os.utime(file)
    report = sync(left)
    assert (report.items.unchanged, report.chunks.embedded, report.chunks.loaded) == (12, 0, 0)


def test_from_scratch_the_same_parts_come_out(left: Config, tmp_path: Path) -> None:
    """Names, schemas, rows and vectors: a backfill of today into an empty folder makes what 0.1.0 made."""
    there = tmp_path / "checkpoint" / "kept" / "aa61d449f8e176a8" / "parts"
    again = load_config(tmp_path / "vecbeam.yaml", ["checkpoint=again", "collection.uri=./again.db"])
    sync(again)
    made = tmp_path / "again" / "kept" / "aa61d449f8e176a8" / "parts"
    assert sorted(path.name for path in made.iterdir()) == sorted(path.name for path in there.iterdir())
    for path in there.iterdir():
        old, new = pq.read_table(path), pq.read_table(made / path.name)
        assert new.schema.remove_metadata().equals(old.schema.remove_metadata())
        assert new.equals(old)


@pytest.mark.parametrize(
    ("encoder", "space"),
    [
        ({}, "385d0041e9b4c24a"),
        ({"dimensions": 64}, "58d3127834acf5e3"),
        ({"prompt": "passage: ", "query_prompt": "query: "}, "f3506ed8c117735f"),
        ({"normalize": False, "max_tokens": 128}, "b69cff546e890655"),
        ({"model": "fake"}, "ac530e0292245466"),
        ({"model": "fake", "dimensions": 8}, "aa61d449f8e176a8"),
    ],
)
def test_spaces_keep_their_ids(encoder: dict[str, Any], space: str) -> None:
    assert resolve(EncoderConfig(**encoder)).space.id == space
