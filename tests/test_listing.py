"""The listing as a table: shards are ranges of its rows, and workers look up what they need."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from apache_beam.internal import pickler
from corpora import configure

from pipelines.steps.corpus.source import prepare
from pipelines.sync import sync
from schemas.config import Config, Corpus
from schemas.identity import digest
from transforms.read import ShardFiles, list_corpus, list_files, plan_ranges, plan_shards
from transforms.support.storage.stored_table import HELD_GROUPS, StoredTable, write_rows


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for folder in ("a", "a-b", "b"):
        (tmp_path / "corpus" / folder).mkdir(parents=True)
        for number in range(9):
            (tmp_path / "corpus" / folder / f"{number}.txt").write_text(f"words {folder} {number}")
        (tmp_path / "corpus" / folder / "page.md").write_text(f"# words of {folder}")
    for name in (b"caf\xe9.txt", "\U0001f6a2.txt".encode(), "\ue000.txt".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path / "corpus" / "a") + b"/" + name)).write_text(f"odd {name!r}")
    corpus = {"paths": ["corpus/**/*.txt", "corpus/**/*.md"]}
    return configure(tmp_path, corpus=corpus)


def test_files_are_in_the_order_of_their_names(config: Config) -> None:
    rows = list_files(config.corpus)
    texts = [file.uri for file in rows if file.format == "text"]
    assert texts == sorted(texts)
    assert [file.uri for file in rows] == [*texts, *sorted(file.uri for file in rows if file.format == "markdown")]
    assert rows[3] == list_corpus(config.corpus)[3] == list(rows)[3]
    assert rows[-2:] == list(rows)[-2:]


def test_the_digest_of_a_corpus_is_that_of_its_list(config: Config) -> None:
    source = prepare(config)
    listing = [list(row.values()) for row in source.files.select(["name", "size", "modified"]).to_pylist()]
    assert source.corpus_digest == digest([source.settings_digest, listing], 32)


def test_a_shard_travels_without_its_files_and_a_worker_finds_them(tmp_path: Path, config: Config) -> None:
    source = prepare(config)
    uri = str(tmp_path / "files.parquet")
    write_rows(uri, source.to_read())
    ranges = list(plan_ranges(source.changed, config.corpus))
    whole = plan_shards(list_corpus(config.corpus), config.corpus)
    files = pickler.loads(pickler.dumps(ShardFiles(uri)))
    for travels, shard in zip(ranges, whole, strict=True):
        assert len(pickler.dumps(travels)) < 1000
        opened = files.open(travels)
        assert (opened.name, opened.files) == (shard.name, shard.files)
        listed = source.files.take(list(opened.positions))
        assert opened.names == tuple(listed.column("name").to_pylist())


def test_rows_are_found_in_a_table_of_which_a_few_groups_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.support.storage.stored_table.GROUP_ROWS", 4)
    names = sorted(f"{number:03d}-é\U0001f6a2" for number in range(100))
    uri = str(tmp_path / "table.parquet")
    write_rows(uri, [pa.table({"name": pa.array(names, pa.large_string()), "at": list(range(100))})], by="name")
    table = StoredTable(uri)
    found = table.find("name", [names[0], names[99], names[41], "", "zzz", "041"])
    assert {name: row["at"] for name, row in found.items()} == {names[0]: 0, names[41]: 41, names[99]: 99}
    assert table.rows(3, 6).column("at").to_pylist() == [3, 4, 5, 6, 7, 8]
    assert table.rows(99, 1).column("at").to_pylist() == [99]
    table.find("name", names)
    assert len(table._groups) == HELD_GROUPS


def test_one_file_of_many_is_read_again(tmp_path: Path, config: Config) -> None:
    assert sync(config).items.new == 33
    (tmp_path / "corpus" / "b" / "7.txt").write_text("edited words")
    report = sync(config)
    assert (report.items.changed, report.items.unchanged, report.chunks.embedded) == (1, 32, 1)
    (tmp_path / "corpus" / "a" / "3.txt").unlink()
    (tmp_path / "corpus" / "a" / "new.txt").write_text("new words")
    report = sync(config)
    assert (report.items.new, report.items.deleted, report.items.unchanged, report.balance()) == (1, 1, 32, [])
    assert list_corpus(Corpus(paths=[str(tmp_path / "corpus" / "b" / "*.md")]))[0].name == "page.md"
