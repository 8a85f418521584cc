"""Names are not patterns: whatever letters a path has, it is the file of that name; globs are what users write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl

from pipelines.backfill import backfill
from pipelines.gc import gc
from pipelines.report import read_report, reports
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Corpus
from schemas.errors import ConfigurationError, GateError
from schemas.globs import Glob
from transforms import collection as milvus
from transforms import filesystem
from transforms.read import list_corpus

ODD = [
    "a[1]",
    "a]",
    "[",
    "a*",
    "?",
    "back\\slash",
    "100%25",
    "a#b",
    "a b ",
    "line\nbreak",
    "{a,b}",
    "!x",
    "~tilde",
    "é",
]
ODD_IDS = [name.encode("unicode_escape").decode() for name in ODD]
NOT_UTF8 = os.fsdecode(b"caf\xe9")
odd = pytest.mark.parametrize("name", [*ODD, NOT_UTF8], ids=[*ODD_IDS, "not-utf8"])


def paths_of(*patterns: Any, **corpus: Any) -> list[str]:
    """Paths, below the globs' roots, of the files of a corpus."""
    return [file.path for file in list_corpus(Corpus(paths=[str(pattern) for pattern in patterns], **corpus))]


@odd
def test_a_glob_that_is_escaped_matches_its_name_alone(name: str) -> None:
    glob = Glob(filesystem.escape(f"/docs/{name}/x"))
    assert glob.matches(f"/docs/{name}/x")
    assert glob.spelled == glob.prefix == f"/docs/{name}/x"
    assert not glob.has_wildcard
    assert Glob(filesystem.escape(f"/docs/{name}") + "/*.txt").root == f"/docs/{name}"
    assert not any(glob.matches(f"/docs/{other}/x") for other in [*ODD, "a1", "a", "x"] if other != name)


@odd
def test_files_below_any_folder_are_listed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    for other in ("a1", name):
        for file in ("b.txt", "sub/c.txt"):
            (tmp_path / other / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / other / file).write_text(other, errors="surrogateescape")
    assert [f.uri for f in filesystem.list_files(str(folder), "*.txt")] == [f"{folder}/b.txt"]
    assert [f.uri for f in filesystem.list_files(str(folder), "**/*.txt")] == [f"{folder}/b.txt", f"{folder}/sub/c.txt"]
    assert filesystem.find(f"{folder}/b.txt") is not None
    if name != NOT_UTF8:  # which no configuration holds
        assert paths_of(f"{filesystem.escape(str(folder))}/**/*.txt") == ["b.txt", "sub/c.txt"]


@odd
def test_a_relative_glob_in_a_configuration_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": 1, "text": "x"}])
    config = configure(folder, corpus={"paths": ["corpus/*.jsonl", "corpus/a.jsonl"]})
    (file,) = list_corpus(config.corpus)
    assert (file.uri, file.path) == (f"{folder}/corpus/a.jsonl", "a.jsonl")


def test_a_checkpoint_in_any_folder_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "proj[1] a*b? #y%20\\z{}"
    folder.mkdir()
    records = [{"id": str(n), "text": text(n)} for n in range(10)]
    write_jsonl(folder / "corpus" / "a.jsonl", records)
    config = configure(folder)
    try:
        assert backfill(config).verify.published
        write_jsonl(folder / "corpus" / "a.jsonl", records[:3])
        with pytest.raises(GateError):
            sync(config)
        write_jsonl(folder / "corpus" / "a.jsonl", [*records[:9], {"id": "new", "text": "other"}])
        report = sync(config)
        assert (report.items.unchanged, report.items.new, report.items.deleted) == (9, 1, 1)
        assert verify(config).verify.found == 10
        assert read_report(config).run_id == report.run_id
        assert read_report(config, report.run_id).run_id == report.run_id
        assert len(list(reports(config))) == 4
        assert len(gc(config, yes=True).snapshots) == 1
        assert not list((folder / "checkpoint").rglob("delta")) + list((folder / "checkpoint").rglob("diff"))
    finally:
        milvus.release(config.collection)


def test_a_backslash_is_a_letter_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "slash.txt").write_text("two")
    (tmp_path / "back\\slash.txt").write_text("one")
    assert sorted(paths_of(tmp_path / "**" / "*.txt")) == ["back/slash.txt", "back\\slash.txt"]


@pytest.mark.parametrize("pattern", ["*/*.parquet", "20?4/*.parquet", "2024/*.parquet", "2024/a.parquet"])
def test_a_folder_of_parts_is_refused_wherever_the_wildcard_stands(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "2024" / "a.parquet").mkdir(parents=True)
    (tmp_path / "2024" / "a.parquet" / "part-0.parquet").touch()
    (tmp_path / "2024" / "b.parquet").touch()
    with pytest.raises(ConfigurationError, match=r"a\.parquet' is a folder where a file is expected") as refused:
        list_corpus(Corpus(paths=[str(tmp_path / pattern)]))
    assert str(tmp_path / "2024" / "a.parquet" / "*.parquet") in str(refused.value)


def test_a_name_that_reads_as_a_glob_is_the_file_where_nothing_else_matches(tmp_path: Path) -> None:
    (tmp_path / "data[1].txt").touch()
    (file,) = list_corpus(Corpus(paths=[str(tmp_path / "data[1].txt")]))
    assert (file.uri, file.path) == (str(tmp_path / "data[1].txt"), "data[1].txt")
    (tmp_path / "data1.txt").touch()
    with pytest.raises(ConfigurationError, match="is the name of a file, and as a glob it matches") as refused:
        paths_of(tmp_path / "data[1].txt")
    assert "data[[]1].txt" in str(refused.value)
    assert paths_of(tmp_path / "data[[]1].txt") == ["data[1].txt"]
    (tmp_path / "*.txt").touch()
    assert paths_of(tmp_path / "*.txt") == ["*.txt", "data1.txt", "data[1].txt"]


@pytest.mark.parametrize("pattern", ["[z-a].txt", "[].txt", "[!].txt", "[&&--~~].txt", "[\\D].txt", "a[b"])
def test_odd_globs_are_no_crash(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "d.txt").touch()
    with pytest.raises(ConfigurationError, match="matches no file"):
        paths_of(tmp_path / pattern)
    (tmp_path / pattern).touch()
    assert paths_of(tmp_path / pattern, format="text") == [pattern]
