"""`vecbeam init`: what it sees, takes and leaves out, and that what it writes runs."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import configure, text, write_jsonl
from proposals import FAKE, init, records
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.init import write_configuration
from pipelines.sync import sync
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError
from transforms.read import list_corpus

pytestmark = pytest.mark.usefixtures("init_folder")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.parametrize("folder", ["data [v1]", "a*b", "what?", "tab\there", "100% #1", "[", "it's"])
def test_folders_of_any_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / "elsewhere [2]").mkdir()
    write_jsonl(tmp_path / folder / "c [1].jsonl", records())
    write_jsonl(tmp_path / folder / "d.jsonl", [{"nothing": 1}])
    for paths, output in (
        ([folder], "vecbeam.yaml"),
        ([f"{folder}/c [1].jsonl"], "file.yaml"),
        ([str(tmp_path / folder)], "elsewhere [2]/x.yaml"),
        ([str(tmp_path / folder)], f"{folder}/x.yaml"),
    ):
        made = init(*paths, output=output)
        assert made.files == {"c [1].jsonl"}
        assert len(made.items) == 30
        assert not [note for note in made.found.notes if "globs match" in note]


def test_what_is_there_is_named_by_kind_and_what_is_left_out_with_why(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_jsonl(corpus / "a.jsonl", records(20))
    (corpus / "more").mkdir()
    (corpus / "more" / "b.JSONL.gz").write_bytes(
        gzip.compress(b"".join(json.dumps({"id": f"z{n}", "text": text(n + 100)}).encode() + b"\n" for n in range(9)))
    )
    write_jsonl(corpus / ".hidden.jsonl", records(1))
    write_jsonl(corpus / ".git" / "x.jsonl", records(1))
    write_jsonl(corpus / "milvus.db" / "x.jsonl", records(1))
    (corpus / "checkpoint" / "docs" / "0011" / "parts").mkdir(parents=True)
    (corpus / "checkpoint" / "docs" / "0011" / "space.json").write_text("{}")
    write_jsonl(corpus / "checkpoint" / "docs" / "x.jsonl", records(1))
    (corpus / "array.json").write_text("[]")
    (corpus / "slides.pptx").write_text("x")
    (corpus / "README.md").write_text("# About the records\n")
    (corpus / "array.jsonl").write_text('[{"id": 1, "text": "x"},\n{"id": 2, "text": "y"}]\n')
    (corpus / "damaged.jsonl.gz").write_bytes(b"no gzip at all")
    write_jsonl(corpus / "other.jsonl", [{"query": 1, "score": 0.5}] * 3)
    shown = CliRunner().invoke(app, ["init", "corpus", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["files"]["taken"] == {"jsonl": 1, "jsonl (gzip)": 1}
    why = {path: entry["why"] for entry in found["files"]["left_out"] for path in entry["paths"]}
    for path, part in {
        ".hidden.jsonl": "hidden",
        ".git/": "hidden",
        "milvus.db/": "Milvus Lite",
        "checkpoint/": "a checkpoint of vecbeam",
        "array.json": "not JSON Lines",
        "slides.pptx": "export it",
        "README.md": "documentation of the files of records",
        "array.jsonl": "write one object per line",
        "damaged.jsonl.gz": "can't be read",
        "other.jsonl": "3 of its first 3 records would be rejected: There is no field",
    }.items():
        assert part in why[path], path
    config = load_config("vecbeam.yaml", FAKE)
    assert {Path(file.uri).name for file in list_corpus(config.corpus)} == {"a.jsonl", "b.JSONL.gz"}
    (tmp_path / "vecbeam.yaml").unlink()
    lines = CliRunner().invoke(app, ["init", "corpus"]).stdout.splitlines()
    assert lines[0] == "found 9 files: 4 jsonl, 2 jsonl (gzip), 1 markdown, 1 .json, 1 .pptx"
    assert lines[1].startswith("reads 2 files: 1 jsonl, 1 jsonl (gzip), ")
    assert "id: id; content: text" in lines
    assert sum(line.startswith("text of ") for line in lines) == 3
    assert lines[-2:] == ["wrote vecbeam.yaml (alias corpus)", "next: vecbeam backfill vecbeam.yaml"]


def test_records_whose_ids_are_stems_of_pictures_elsewhere_are_no_labels(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"p{number}.jpg").write_bytes(b"x")
    rows = [{"id": f"p{n}", "text": f"words of {n}"} for n in range(9)]
    write_jsonl(tmp_path / "texts" / "a.jsonl", rows)
    assert init(".").files == {"a.jsonl"}
    (tmp_path / "vecbeam.yaml").unlink()
    write_jsonl(tmp_path / "images" / "a.jsonl", rows)
    made = init("images")
    assert made.why == {"a.jsonl": "it names 9 of the image files, as labels do"}
    assert made.config.corpus.format == "image"


def test_labels_beside_pictures_are_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(9):
        (tmp_path / "images" / f"p{number}.jpg").write_bytes(b"x")
    (tmp_path / "images" / "labels.tsv").write_text("file\tlabel\n" + "".join(f"p{n}.jpg\tcat\n" for n in range(9)))
    made = init("images")
    assert made.why["labels.tsv"] == "it names 9 of the image files, as labels do"
    assert (made.config.corpus.format, made.found.values["encoder"]["model"], len(made.items)) == ("image", "conse", 9)
    (tmp_path / "vecbeam.yaml").unlink()
    (tmp_path / "images" / "labels.tsv").rename(tmp_path / "labels.tsv")
    made = init(".")
    assert "as labels do" in made.why["labels.tsv"]
    assert len(made.items) == 9
    (tmp_path / "vecbeam.yaml").unlink()
    captions = [{"file": f"images/p{n}.jpg", "caption": f"a dog runs over the grass number {n}"} for n in range(9)]
    write_jsonl(tmp_path / "captions.jsonl", captions)
    made = init(".")
    assert (made.files, made.found.corpus["id"]) == ({"captions.jsonl"}, "file")
    assert made.found.corpus["content"] == ["caption"]


def test_optional_keys_are_comments_that_can_be_taken_in(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", records())
    made = init("a.jsonl")
    written = Path("vecbeam.yaml").read_text()
    keys = re.findall(r"^ *# +([a-z_0-9]+): ", written, re.MULTILINE)
    for key in ("on_duplicate", "max_deleted", "engine", "query_prompt", "batch_rows", "recall_at_10", "max_rejected"):
        assert key in keys
    assert "## If two items have one id" in written
    plain = "\n".join(re.sub(r"^( *)# ", r"\1", line) for line in written.splitlines()[1:] if "##" not in line)
    Path("all.yaml").write_text(plain)
    assert len(yaml.safe_load(plain)["encoder"]) > 8
    assert load_config("all.yaml", FAKE) == made.config


def test_names_that_are_taken_or_can_not_be_get_a_suggestion(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "my docs" / "a.jsonl", records())
    configure(tmp_path, name="my_docs", corpus={"paths": ["x.jsonl"]})
    made = init("my docs", output="second.yaml")
    assert made.config.name == "my_docs_2"
    assert made.found.notes == ["the alias is my_docs_2, as vecbeam.yaml has the name my_docs"]
    with pytest.raises(ConfigurationError, match=r"vecbeam.yaml already has it. write --name my_docs_3"):
        init("my docs", output="third.yaml", name="my_docs")
    with pytest.raises(ConfigurationError, match=r"letters, digits and underscores. write --name my_new_docs"):
        init("my docs", output="third.yaml", name="my-new-docs")
    assert init("my docs", output="third.yaml", name="other").config.name == "other"
    with pytest.raises(ConfigurationError, match="already exists"):
        init("my docs", output="third.yaml")
    with pytest.raises(ConfigurationError, match=r"--output my docs/vecbeam.yaml"):
        init("my docs", output="my docs")


def test_its_own_parquet_files_never_become_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / "corpus" / name).mkdir(parents=True)
        rows = [{"id": f"{name}{number}", "text": text(number)} for number in range(20)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus" / name / "a.parquet")
    monkeypatch.chdir(tmp_path / "corpus")
    made = init(".")
    assert (made.config.name, len(made.items)) == ("corpus", 40)
    assert backfill(made.config).items.new == 40
    again = sync(made.config)
    assert (again.items.read, again.items.unchanged, again.items.new) == (40, 40, 0)


def test_control_characters_of_a_corpus_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"id": "a\x1b[31m1", "text": "red \x1b[31malert\x07 \u202eback", "x\x1b": []}])
    shown = CliRunner().invoke(app, ["init", "a.jsonl"])
    assert shown.exit_code == 0
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", shown.stdout)
    assert "red" in shown.stdout


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "it holds no record"),
        ("a.jsonl", b'{"n": 1}\n', "no field holds text; the records have: n"),
        ("a.csv", b"id,text\n", "it holds no record"),
        ("a.csv", b"a,a\n1,2\n", "names 'a' more than once"),
        ("a.parquet", b"PAR1", "can't be read"),
        ("a.bin", b"x", r"\.bin is not a format"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=says):
        init(name)
    with pytest.raises(ConfigurationError, match="matches no file"):
        init("nothing here")


def test_folders_of_an_object_store(s3_bucket: tuple[Any, str]) -> None:
    client, bucket = s3_bucket
    for key, first in (("docs [1]/a.jsonl", 0), ("docs [1]/more/b.jsonl", 50)):
        rows = [{"id": str(number), "text": text(number)} for number in range(first, first + 20)]
        client.put_object(Bucket=bucket, Key=key, Body="\n".join(map(json.dumps, rows)).encode())
    for number in range(3):
        client.put_object(Bucket=bucket, Key=f"docs [1]/{number}.png", Body=b"x")
    made = init(f"s3://{bucket}/docs [1]/", output="folder.yaml")
    assert made.config.corpus.paths == [f"s3://{bucket}/docs [[]1]/**/*.jsonl"]
    assert (len(made.items), list(made.why)) == (40, ["0.png", "1.png", "2.png"])
    made = init(f"s3://{bucket}/docs [1]/a.jsonl", output="file.yaml")
    assert made.config.corpus.paths == [f"s3://{bucket}/docs [[]1]/a.jsonl"]
    made = init(f"s3://{bucket}/docs [[]1]/*.jsonl", output="glob.yaml")
    assert made.config.corpus.paths == [f"s3://{bucket}/docs [[]1]/*.jsonl"]
    with pytest.raises(ConfigurationError, match="matches no file"):
        init(f"s3://{bucket}/nothing", output="none.yaml")


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data next to the project")
@pytest.mark.parametrize(("folder", "taken"), [("cranfield", {"docs.jsonl"}), ("debian", {"corpus.jsonl.gz"})])
def test_real_folders(folder: str, taken: set[str]) -> None:
    found = write_configuration([str(DATA / folder)], Path("vecbeam.yaml"), None)
    assert {Path(file.uri).name for file in list_corpus(load_config("vecbeam.yaml", FAKE).corpus)} == taken
    assert found.corpus["id"] == "id"
