"""`vecbeam export`: the live rows as files of other tools, whole or not at all."""

from __future__ import annotations

import errno
import json
import resource
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl
from typer.testing import CliRunner

import vecbeam
from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.export import export
from pipelines.steps.results import rows_file
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import StorageError
from transforms.checkpoint import Checkpoint
from transforms.milvus import release

HARD = 'a "quoted"\ttab\nand a\u2028break, <b>bold</b>'
COLUMNS = ["id", "item_id", "chunk", "text", "start", "end", "content_hash", "tokens", "tokens_dropped", "shelf"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty rows in two parts, five of them deleted and one changed since the first run, two vectors."""
    folder = tmp_path_factory.mktemp("export")
    items = [{"id": f"i{n:02}", "text": f"text {n}", "shelf": f"s{n % 3}"} for n in range(20)]
    more = [{"id": f"j{n:02}", "text": f"other {n}", "shelf": "t"} for n in range(10)]
    write_jsonl(folder / "corpus" / "a.jsonl", items)
    write_jsonl(folder / "corpus" / "b.jsonl", more)
    encoders = {"body": {"model": "fake", "dimensions": 8}, "title": {"model": "fake", "dimensions": 4}}
    corpus = {"paths": ["corpus/*"], "metadata": {"shelf": "string"}, "max_deleted": 1.0}
    config = configure(folder, corpus=corpus, encoders=encoders)
    backfill(config)
    items[7]["text"] = HARD
    write_jsonl(folder / "corpus" / "a.jsonl", items[5:])
    sync(config)
    release(config.collection)
    return folder


@pytest.fixture
def config(folder: Path) -> Config:
    return load_config(folder / "vecbeam.yaml")


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, dict[str, Any]]:
    """The live rows by id, read from the parts."""
    config = load_config(folder / "vecbeam.yaml")
    checkpoint = Checkpoint(config.checkpoint, config.name, "")
    snapshot = checkpoint.read_snapshot(checkpoint.snapshots()[-1])
    assert snapshot.parts.num_rows > 1
    here = Checkpoint(config.checkpoint, config.name, snapshot.space_id)
    rows = [row for part in snapshot.live_parts for row in here.read_live(part).to_pylist()]
    return {row["id"]: row for row in rows}


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_parquet_has_the_live_rows_with_their_vectors(
    folder: Path, expected: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "rows of mine.parquet"
    done = command("export", str(path), str(folder / "vecbeam.yaml"))
    assert done.exit_code == 0, done.output
    table = pq.read_table(path)
    assert table.num_rows == len(expected) == 25
    assert {row["id"]: row for row in table.to_pylist()} == expected
    assert "i00#0" not in expected
    assert expected["i07#0"]["text"] == HARD
    assert set(table.column_names) == {*COLUMNS, "body", "title"}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    quoted = shlex.quote(str(path))
    assert done.stdout.splitlines()[-1] == f"open with embedding-atlas {quoted} --vector body --text text"
    assert json.loads(table.schema.metadata[b"vecbeam"])["space"] in done.stdout


def test_json_lines_and_chosen_columns(folder: Path, expected: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    where = (str(folder / "vecbeam.yaml"), "--json")
    found = json.loads(command("export", str(tmp_path / "a.jsonl"), *where, "--without-vectors").stdout)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().split("\n")[:-1]]
    assert {row["id"]: row for row in rows} == {
        key: {name: value for name, value in row.items() if name in COLUMNS} for key, row in expected.items()
    }
    assert (found["rows"], found["kind"], found["vectors"], found["open"]) == (25, "jsonl", [], "")
    assert (found["bytes"], found["columns"]) == ((tmp_path / "a.jsonl").stat().st_size, found["columns"])
    words = ("--columns", "shelf, id", "--vector", "title")
    found = json.loads(command("export", str(tmp_path / "b.jsonl"), *where, *words).stdout)
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().split("\n")[:-1]]
    assert [list(row) for row in rows] == [["shelf", "id", "title"]] * 25
    np.testing.assert_array_equal(rows[0]["title"], expected[rows[0]["id"]]["title"])


def test_a_folder_for_the_projector_of_tensorboard(
    config: Config, expected: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    found = export(config, tmp_path / "projector")
    assert (found.kind, found.vectors) == ("projector", ["body"])
    assert found.open == f"tensorboard --logdir {tmp_path / 'projector'}"
    folder = tmp_path / "projector"
    assert sorted(file.name for file in folder.iterdir()) == sorted(rows_file.PROJECTOR_FILES)
    names, *lines = (folder / "metadata.tsv").read_text().split("\n")[:-1]
    rows = [dict(zip(names.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert [row["id"] for row in rows] == list(expected)
    assert {row["id"]: row["text"] for row in rows}["i07#0"] == 'a "quoted" tab and a break, <b>bold</b>'
    vectors = np.loadtxt(folder / "tensors.tsv", np.float32, delimiter="\t")
    np.testing.assert_array_equal(vectors, np.array([row["body"] for row in expected.values()], np.float32))
    assert (folder / "projector_config.pbtxt").read_text() == (
        'embeddings {\n  tensor_name: "body"\n  tensor_path: "tensors.tsv"\n  metadata_path: "metadata.tsv"\n}\n'
    )
    # One column has no line of names, as the projector expects.
    vecbeam.export(config, folder, columns=["id"], vector="title", overwrite=True)
    assert (folder / "metadata.tsv").read_text().split("\n")[:-1] == list(expected)
    assert np.loadtxt(folder / "tensors.tsv", delimiter="\t").shape == (25, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["projector"]


def test_the_rows_that_are_served(folder: Path, config: Config, tmp_path: Path) -> None:
    with vecbeam.Index(folder / "vecbeam.yaml") as index:
        assert index.export(tmp_path / "served.parquet", served=True).rows == 25


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["there.parquet"], "there.parquet exists. Name another file, or add --overwrite"),
        (["missing/rows.parquet"], "the folder missing does not exist"),
        (["rows.csv"], "rows.csv does not end in .parquet or .jsonl"),
        (["s3://bucket/rows.parquet"], "export writes to this machine's disk"),
        (["full"], "full exists"),
        (["full", "--overwrite"], "is a folder with other files, such as mine.txt"),
        (["file", "--overwrite"], "file is a file"),
        (["new.parquet", "--columns", "id,nothing"], "--columns: rows have no column 'nothing'; they have id, item_id"),
        (["new.parquet", "--columns", "body"], "--columns: 'body' is a vector"),
        (
            ["new.parquet", "--vector", "nothing"],
            "rows have no vector 'nothing' in the checkpoint; they have body, title",
        ),
        (["new.parquet", "--vector", "body", "--without-vectors"], "--vector and --without-vectors contradict"),
        (["new", "--without-vectors"], "--without-vectors: new is a folder for TensorBoard's projector"),
        (["new", "--vector", "body", "--vector", "title"], "--vector: a projector shows one, not body, title"),
        (["new", "--vector", "nothing"], "'nothing' is not a dense vector"),
    ],
)
def test_what_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    (tmp_path / "there.parquet").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    refused = command("export", words[0], str(folder / "vecbeam.yaml"), *words[1:])
    assert refused.exit_code == 2, refused.output
    assert message.lower() in refused.stderr.lower()
    assert (tmp_path / "there.parquet").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "full", "there.parquet"]


def test_no_file_of_the_corpus_is_made_or_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in (folder / "corpus").iterdir()}
    monkeypatch.chdir(folder)
    for words in (
        ["export", "corpus/a.jsonl", "--overwrite"],
        ["export", "corpus/../corpus/new.jsonl"],
        ["explore", "outliers", "--vector", "body", "--out", "corpus/new.jsonl"],
        ["explore", "similar", "one", "two", "--out", "corpus/a.jsonl"],
        ["evaluate", "--known-items", "2", "--out", "corpus/a.jsonl"],
        ["compare", "vecbeam.yaml", "vecbeam.yaml", "--queries", "q.jsonl", "--out", "corpus/new.jsonl"],
    ):
        refused = command(*words)
        assert refused.exit_code == 2, refused.output
        assert "would be a file of the corpus: corpus.paths" in refused.stderr
    assert {file.name: file.read_bytes() for file in (folder / "corpus").iterdir()} == before


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows"])
def test_a_full_disk_leaves_nothing_and_an_earlier_file_as_it_was(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    export(config, path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert before

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, attribute in ((rows_file.pq, "write_table"), (rows_file.orjson, "dumps"), (rows_file, "_line")):
        monkeypatch.setattr(module, attribute, full, raising=False)
    monkeypatch.setattr(rows_file.pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match=r"can't write .*rows.*: No space left on device") as refused:
        export(config, path, overwrite=True)
    assert "free some space" in refused.value.remedy
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    with pytest.raises(StorageError):
        export(config, tmp_path / f"other{path.suffix}")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_over_the_size_limit_of_the_process_is_a_full_disk(config: Config, tmp_path: Path) -> None:
    """As the system does it, without a replaced function."""
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError) as refused:
            export(config, tmp_path / "rows.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "free some space" in refused.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_without_a_snapshot(tmp_path: Path) -> None:
    configure(tmp_path)
    refused = command("export", str(tmp_path / "rows.parquet"), str(tmp_path / "vecbeam.yaml"))
    assert refused.exit_code == 1
    assert "has no snapshot. Run vecbeam backfill first" in refused.stderr.replace("run", "Run")
