"""Names are not patterns: whatever letters a path has, it is the file of that name; globs are what users write."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl

from pipelines.backfill import backfill
from pipelines.gc import gc
from pipelines.init import write_configuration
from pipelines.run.report_store import read_report, reports
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Corpus
from schemas.config.loader import load_config, parse_config
from schemas.errors import ConfigurationError, CorpusError, GateError
from schemas.glob import Glob
from schemas.records import Key
from transforms import milvus
from transforms.checkpoint.folder import part_name
from transforms.read import Own, list_corpus, plan_shards, read_shard
from transforms.support.storage import filesystem

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
    paths = {"paths": ["corpus/*.jsonl", "corpus/a.jsonl"]}
    config = configure(folder, corpus=paths, collection={"uri": str(tmp_path / "milvus.db")})
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


def items_of(pattern: Path, **corpus: Any) -> tuple[dict[str, str], dict[str | None, str]]:
    """Texts by item, and errors by item."""
    settings = Corpus(paths=[str(pattern)], **corpus)
    shards = plan_shards(list_corpus(settings), settings)
    batches = [batch for shard in shards for batch in read_shard(shard, settings, batch_rows=100)]
    return (
        {item["item_id"]: item["@content"] for batch in batches for item in batch.items.to_pylist()},
        {reject["id"]: reject["error"] for batch in batches for reject in batch.rejects.to_pylist()},
    )


def test_each_name_is_an_item_of_its_own(tmp_path: Path) -> None:
    names = [f"{name}.txt" for name in [*ODD, NOT_UTF8, "caf\\udce9", "caf\\\\udce9", os.fsdecode(b"\\\xe9"), "plain"]]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"text {number}")
    found, rejects = items_of(tmp_path / "*.txt")
    assert rejects == {}
    assert sorted(found.values()) == sorted(f"text {number}" for number in range(len(names)))
    for number, name in enumerate(names[: len(ODD)]):
        assert found[name] == f"text {number}"
    assert found["caf\\udce9.txt"] == f"text {len(ODD)}"  # as version 0.1.0 wrote the path
    assert all(item_id.encode() for item_id in found)


def test_as_text_tells_all_names_apart() -> None:
    letters = ["\\", "\udce9", "udce9", "\\udce9", "x"]
    names = {a + b + c for a in letters for b in letters for c in letters}
    assert len({filesystem.as_text(name) for name in names}) == len(names)


def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "to-a.txt").symlink_to("a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "to-pipe.txt").symlink_to("pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "nowhere.txt").symlink_to("gone.txt")
    (tmp_path / "round").symlink_to(".")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        found, rejects = items_of(tmp_path / "**" / "*.txt")
    odd_files = ["loop.txt", "nowhere.txt", "pipe.txt", "socket.txt", "to-pipe.txt", "zero.txt"]
    assert found == {"a.txt": "a", "to-a.txt": "a"}
    assert rejects == dict.fromkeys(odd_files, "UnreadableFile")
    for name, kind in (("pipe.txt", "named pipe"), ("zero.txt", "character device"), ("to-pipe.txt", "named pipe")):
        with pytest.raises(ConfigurationError, match=kind):
            paths_of(tmp_path / name)
    assert paths_of(tmp_path / "loop.txt") == ["loop.txt"]  # which is a reject


def test_folders_that_cannot_be_read_fail_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.txt").touch()
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> Any:  # tests may run as root, whom no mode keeps out
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for pattern in ("*/*.txt", "**/*.txt", "**"):
        with pytest.raises(CorpusError, match="could not be listed to the end"):
            paths_of(tmp_path / pattern, format="text")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    for name in ("a.txt", ".b.txt", "_SUCCESS", "_committed_123", "part.txt/x", ".git/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    notes: list[str] = []
    assert [file.path for file in list_corpus(Corpus(paths=[f"{tmp_path}/**/*.txt"]), None, notes)] == ["a.txt"]
    assert len(notes) == 2
    assert "part.txt" in notes[0]
    assert "2 hidden" in notes[1]
    assert ".b.txt" in notes[1]
    assert ".git/" in notes[1]
    notes.clear()
    (tmp_path / "part.txt").rename(tmp_path / "part")
    assert [file.path for file in list_corpus(Corpus(paths=[f"{tmp_path}/*"]), None, notes)] == ["a.txt"]
    assert "_SUCCESS" in notes[0]
    assert "_committed_123" in notes[0]


def written(folder: Path) -> None:
    """Files with the names that a run gives them."""
    part = part_name(Key("docs-0000-1a2b3c4d", 0), "00ff00ff00ff00ff")
    for name in (
        f"checkpoint/tested/aa61d449f8e176a8/parts/{part}",
        f"checkpoint/other/aa61d449f8e176a8/items/{part}",
        "checkpoint/tested/snapshots/000001-aa61d449-bb00.parquet",
        "checkpoint/tested/runs/20261125T173114.123456Z-sync-7/diff/dead.parquet",
        "checkpoint/tested/runs/20261125T173114Z-sync-7/report.json",
        "milvus.db/collections/tested_1_2/partitions/_default/data/data_000001_000100.parquet",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_its_own_files_are_never_the_corpus(tmp_path: Path) -> None:
    written(tmp_path)
    own = Own(f"{tmp_path}/checkpoint/tested", f"{tmp_path}/milvus.db")
    glob = str(tmp_path / "**" / "*.parquet")
    with pytest.raises(ConfigurationError, match="but 5 of a checkpoint or of Milvus Lite") as refused:
        list_corpus(Corpus(paths=[glob]), own)
    assert "would match" not in str(refused.value)

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.parquet").touch()
    (tmp_path / "link").symlink_to("checkpoint/tested")
    for pattern in (glob, str(tmp_path / "*" / "**" / "*.parquet"), f"{tmp_path}/docs/../**/*.parquet"):
        notes: list[str] = []
        files = list_corpus(Corpus(paths=[pattern]), own, notes)
        assert [Path(file.uri).name for file in files] == ["a.parquet"]
        assert "of a checkpoint or of Milvus Lite" in notes[0]
    for pattern in ("link/*/parts/*", "checkpoint/tested/aa61d449f8e176a8/parts/*", "milvus.db/**/*.parquet"):
        with pytest.raises(ConfigurationError, match="of a checkpoint or of Milvus Lite"):
            list_corpus(Corpus(paths=[str(tmp_path / pattern)]), own)

    (tmp_path / "checkpoint" / "tested" / "mine.parquet").touch()  # a corpus in the folder of its own name
    assert len(list_corpus(Corpus(paths=[str(tmp_path / "checkpoint" / "tested" / "*.parquet")]), own)) == 1


def test_a_remedy_never_names_its_own_files(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "d.json").touch()
    with pytest.raises(ConfigurationError, match="matches no file") as refused:
        paths_of(tmp_path / "c.jsonl")
    assert "parquet" not in str(refused.value)
    assert "d.json" in str(refused.value)
    (tmp_path / "e[1]").mkdir()
    (tmp_path / "e[1]" / "x.csv").touch()
    with pytest.raises(ConfigurationError, match="would match") as refused:
        paths_of(tmp_path / "c.jsonl")
    assert f"{tmp_path}/**/*.csv" in str(refused.value)
    with pytest.raises(ConfigurationError, match="are letters") as refused:
        paths_of(tmp_path / "e[1]" / "*.csv")
    assert f"{tmp_path}/e[[]1]/*.csv" in str(refused.value)
    with pytest.raises(ConfigurationError, match="is a folder") as refused:
        paths_of(tmp_path / "e[1]")
    assert f"{tmp_path}/e[[]1]/*.csv" in str(refused.value)


def test_long_and_odd_names_are_written(tmp_path: Path) -> None:
    for name in [*ODD, NOT_UTF8, "n" * 255, "é" * 127]:
        path = tmp_path / "sub" / name
        filesystem.write_atomic(str(path), b"x")
        assert path.read_bytes() == b"x"
        assert filesystem.find(str(path)) is not None
        filesystem.delete([str(path)])
        assert list((tmp_path / "sub").iterdir()) == []


def test_leftovers_of_dead_writers_are_swept_whatever_the_host_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1.rack[2].example")
    dead, alive = 4_000_000, os.getpid()
    names = [f".{name}.node-1.rack[2].example.{dead}.tmp" for name in ("a", "line\nbreak", "x[1]")]
    stays = [f".a.node-1.rack[2].example.{alive}.tmp", f".a.other.{dead}.tmp", ".a.tmp", f".node.{'9' * 40}.tmp"]
    folder = tmp_path / "proj[1]"
    folder.mkdir()
    for name in [*names, *stays]:
        (folder / name).touch()
    assert filesystem.sweep_temporaries(str(folder)) == len(names)
    assert sorted(path.name for path in folder.iterdir()) == sorted(stays)


def test_globs_below_the_configuration_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home[1]"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "a.txt").touch()
    (tmp_path / "~nobody-of-this-name.txt").touch()
    config = configure(tmp_path, corpus={"paths": ["~/*.txt", "~nobody-of-this-name.txt"]}, checkpoint="~nobody.x")
    assert [file.path for file in list_corpus(config.corpus)] == ["a.txt", "~nobody-of-this-name.txt"]
    assert config.checkpoint == str(tmp_path / "~nobody.x")


def test_items_with_odd_names_are_served_changed_and_deleted(tmp_path: Path) -> None:
    folder = tmp_path / NOT_UTF8  # the configuration's own folder
    names = [f"{name}.txt" for name in [*ODD, NOT_UTF8, 'it\'s "quoted"', "a' or id != '", "caf\\udce9"]]
    for number, name in enumerate(names):
        (folder / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "corpus" / name).write_text(text(number))
    with pytest.raises(ConfigurationError, match=r"collection\.uri .* not valid UTF-8"):
        configure(folder)
    config = configure(folder, collection={"uri": f"{tmp_path}/milvus.db"})
    try:
        report = backfill(config)
        assert (report.items.new, report.items.rejected, report.verify.published) == (len(names), 0, True)
        for name in names[::2]:
            (folder / "corpus" / name).unlink()
        (folder / "corpus" / names[1]).write_text("changed")
        report = sync(config, allow_deletes=True)
        assert (report.items.deleted, report.items.changed) == (len(names[::2]), 1)
        assert verify(config).verify.unexpected == 0
        with milvus.connected(config.collection) as connection:
            connection.client.load_collection(milvus.served(connection, "tested"))
            rows = connection.client.query("tested", filter="", limit=100, output_fields=["item_id"])
        assert {row["item_id"] for row in rows} == {filesystem.as_text(name) for name in names[1::2]}
    finally:
        milvus.release(config.collection)


def test_a_glob_that_is_no_utf8_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"corpus\.paths\.0: .*not valid UTF-8; in a glob write \?"):
        parse_config({"name": "t", "corpus": {"paths": [f"{NOT_UTF8}/*.txt"]}}, folder=tmp_path)
    (tmp_path / NOT_UTF8).mkdir()
    (tmp_path / NOT_UTF8 / "a.txt").touch()
    assert paths_of(tmp_path / "caf?" / "*.txt") == [f"{NOT_UTF8}/a.txt"]


def test_a_line_break_in_a_key_is_named() -> None:
    for name in ("a\nb", "a\n"):  # of the second Beam would read the key without its last letter
        with pytest.raises(FileNotFoundError, match="line break"):
            filesystem.open_binary(f"s3://bucket/{name}")
        with pytest.raises(FileNotFoundError, match="line break"):
            filesystem.exists(f"gs://bucket/{name}")


def test_init_writes_a_configuration_for_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "d [v1]*"
    folder.mkdir()
    for name in ("a.txt", f"{NOT_UTF8}.txt", "b[1].txt"):
        (folder / name).write_text(f"text of {filesystem.as_text(name)}")
    os.mkfifo(folder / "pipe.txt")
    (folder / "loop.txt").symlink_to("loop.txt")
    found = write_configuration([str(folder)], tmp_path / "vecbeam.yaml", None)
    assert "pipe.txt: not a regular file" in str(found)
    files = list_corpus(load_config(tmp_path / "vecbeam.yaml").corpus)
    assert sorted(file.path for file in files) == sorted(["a.txt", f"{NOT_UTF8}.txt", "b[1].txt"])
