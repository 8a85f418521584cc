"""`vecbeam init`: what it sees, takes and leaves out, and that what it writes runs."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.init import Proposal, write_configuration
from pipelines.search import search
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError
from transforms.read import list_corpus, plan_shards, read_shard

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FAKE = ("encoder={model: fake, dimensions: 8}",)


class Made(NamedTuple):
    found: Proposal
    config: Config
    items: list[dict[str, Any]]
    rejects: list[dict[str, Any]]

    @property
    def files(self) -> set[str]:
        return {file.uri.rsplit("/", 1)[-1] for file in list_corpus(self.config.corpus)}

    @property
    def why(self) -> dict[str, str]:
        return {path: why for why, paths in self.found.left_out.items() for path in paths}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    from milvus_lite.server_manager import server_manager_instance

    for path in (tmp_path / "milvus.db", tmp_path / "corpus" / ".vecbeam" / "milvus.db"):
        server_manager_instance.release_server(str(path))


def init(*paths: str, output: str = "vecbeam.yaml", name: str | None = None) -> Made:
    """Writes a configuration, loads it, and reads all that it names."""
    found = write_configuration(list(paths), Path(output), name)
    config = load_config(output, FAKE)
    items, rejects = [], []
    for shard in plan_shards(list_corpus(config.corpus), config.corpus):
        for batch in read_shard(shard, config.corpus, batch_rows=1000):
            items += batch.items.to_pylist()
            rejects += batch.rejects.to_pylist()
    return Made(found, config, items, rejects)


def records(count: int = 30, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"r{number}", "text": text(number), **more} for number in range(count)]


NO_IDS: dict[str, list[Any]] = {
    "fractions": [0.5, 0.25, 0.125],
    "lists": [["x"], ["y"], ["z"]],
    "objects": [{"a": 1}, {"a": 2}, {"a": 1}],
    "truth": [True, False, True],
    "dates": [datetime.date(2024, 1, day) for day in (1, 2, 3)],
    "times": [datetime.datetime(2024, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)],
    "bytes": [uuid.UUID(int=number).bytes for number in (1, 2, 3)],
    "decimals": [decimal.Decimal("1.1"), decimal.Decimal("2.2"), decimal.Decimal("3.3")],
    "nulls": [None, None, None],
    "empty": ["", "a1", "b1"],
    "twice": ["a1", "a1", "b1"],
    "long": ["x" * 600 + str(number) for number in range(3)],
}


@pytest.mark.parametrize("kind", NO_IDS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_no_field_is_the_id_that_records_would_be_rejected_for(tmp_path: Path, kind: str, suffix: str) -> None:
    rows = [{"id": value, "text": text(number)} for number, value in enumerate(NO_IDS[kind])]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    elif kind in ("dates", "times", "bytes", "decimals"):
        pytest.skip("JSON has no such values")
    else:
        write_jsonl(tmp_path / "a.jsonl", rows)
    made = init(f"a.{suffix}")
    assert made.found.corpus["id"] == {"hash": ["text"]}
    assert made.config.corpus.on_duplicate == "first"
    assert [item["@content"] for item in made.items] == [row["text"] for row in rows]
    assert made.rejects == []
    assert any("ids are made from text" in note for note in made.found.notes)


@pytest.mark.parametrize(
    ("rows", "identity"),
    [
        ([{"n": 0.5, "slug": "s1", "text": "one"}, {"n": 1.5, "slug": "s2", "text": "two"}], "slug"),
        ([{"key": 1, "text": "one"}, {"key": 2, "text": "two"}], "key"),
        ([{"Product ID": "x", "text": "one"}, {"Product ID": "y", "text": "two"}], "Product ID"),
        ([{"meta": {"id": "x"}, "text": "one"}, {"meta": {"id": "y"}, "text": "two"}], "meta.id"),
        ([{"uid": 1, "text": "one"}, {"uid": 2, "text": "two"}], "uid"),
        ([{"n": 1, "text": "one"}, {"n": 2, "text": "two"}], {"hash": ["text"]}),
        ([{"title": "A", "day": "2024-01-01"}, {"title": "B", "day": "2024-01-02"}], {"hash": ["title"]}),
    ],
)
def test_which_field_is_the_id(tmp_path: Path, rows: list[dict[str, Any]], identity: Any) -> None:
    write_jsonl(tmp_path / "a.jsonl", rows)
    made = init("a.jsonl")
    assert made.found.corpus["id"] == identity
    if "n" in rows[0] and identity != "slug":
        assert "different value in each record, none has the name of an id (n)" in made.found.notes[0]
    assert (len(made.items), made.rejects) == (2, [])


def test_a_few_broken_records_change_no_field(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = records(60, title="T")
    rows[7] = {"id": None, "text": "x", "title": "T"}
    rows[9] = {"id": "r9", "text": 5, "title": "T"}
    write_jsonl(tmp_path / "a.jsonl", rows)
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write("{broken\n[1, 2]\n")
    made = init("a.jsonl")
    assert (made.found.corpus["id"], made.found.corpus["content"]) == ("id", ["title", "text"])
    assert (len(made.items), len(made.rejects)) == (58, 4)
    assert any("2 of the first records can't be parsed" in note for note in made.found.notes)
    assert any("would be rejected" in note for note in made.found.notes)


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


def test_samples_have_the_ids_that_a_run_gives(tmp_path: Path) -> None:
    for name in ("a", "deep/b"):
        (tmp_path / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pages" / f"{name}.md").write_text(f"# Page {name}\n\nwords of it\n")
    made = init("pages")
    listed = list_corpus(load_config(tmp_path / "vecbeam.yaml", FAKE).corpus)
    assert [item_id for item_id, _ in made.found.samples] == [file.name for file in listed] == ["a.md", "deep/b.md"]


def test_the_fields_of_an_id_are_written_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"question": f"what is {n} like", "answer": "it is a number"} for n in range(5)])
    init("a.jsonl")
    assert "&" not in (tmp_path / "vecbeam.yaml").read_text().split("encoder:")[0]  # no YAML anchor
    corpus = load_config(tmp_path / "vecbeam.yaml").corpus
    assert corpus.id_fields == corpus.content == ["question", "answer"]


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


CSV = """ref;title;body;year;price;stock;code;day;score;in;empty;mixed;zip
A-1;Über;"Ein Text; mit Semikolon";1999;1.5;true;007;2024-01-05;3;x;;1;01067
A-2;Öl;"Zwei
Zeilen";2001;2;FALSE;008;2024-02-05;4;y;;zwei;10115
A-3;Äpfel;Drei;;2.25;true;009;2024-03-05;5;z;;3;80331
"""


def test_texts_in_another_encoding_are_told_with_the_key_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café au lait\n".encode("windows-1252"))
    found = write_configuration(["a.txt"], Path("new/vecbeam.yaml"), None)
    assert "new did not exist: it is a new folder" in found.notes
    said = "not valid UTF-8 at its byte 3: 0xe9; convert the files to UTF-8, or set corpus.encoding"
    assert any(said in note for note in found.notes), found.notes
    (tmp_path / "b.jsonl").write_bytes('{"id": "b", "text": "café"}\n'.encode("windows-1252"))
    with pytest.raises(ConfigurationError, match=r"no line of it is a JSON object in UTF-8; .* set corpus\.encoding"):
        write_configuration(["b.jsonl"], Path("b.yaml"), None)
    assert not Path("b.yaml").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "windows-1252", "utf-16"])
def test_a_csv_file_between_semicolons_gets_typed_columns_and_runs(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.csv").write_bytes(CSV.encode(encoding))
    made = init("corpus")
    assert made.config.corpus.csv.delimiter == ";"
    assert made.config.corpus.csv.encoding == ("windows-1252" if encoding == "windows-1252" else None)
    assert (made.config.corpus.id, made.config.corpus.content) == ("ref", ["title", "body"])
    assert made.found.corpus["metadata"] == {
        "year": "int",
        "price": "float",
        "stock": "bool",
        "code": "string",  # 007 is not a number
        "day": "string",
        "score_": {"from": "score", "type": "int"},
        "in_": {"from": "in", "type": "string"},
        "mixed": "string",
        "zip": "string",
    }
    assert made.found.fields_left_out == {"empty": "null in each of the first records"}
    assert made.rejects == []
    assert made.items[0]["@content"] == "Über\n\nEin Text; mit Semikolon"
    assert [(i["year"], i["price"], i["stock"], i["score_"]) for i in made.items] == [
        (1999, 1.5, True, 3),
        (2001, 2.0, False, 4),
        (None, 2.25, True, 5),
    ]
    if encoding == "utf-8":
        report = backfill(made.config)
        assert (report.items.new, report.warnings, report.exit_code) == (3, [], 0)
        hits = search(made.config, "x", filter_expression='in_ == "y" and score_ > 3 and day > "2024-02"')
        assert [hit["item_id"] for hit in hits] == ["A-2"]


def test_fields_of_objects_and_types_that_no_column_has(tmp_path: Path) -> None:
    rows = [
        {
            "doc": {"key": f"k{n}", "text": text(n), "lang": "en"},
            "tags": ["a"],
            "at": datetime.datetime(2024, 1, 1 + n, tzinfo=datetime.UTC),
            "raw": b"\xff\x00",
            "took": datetime.timedelta(seconds=n),
            "price": decimal.Decimal(f"{n}.5"),
            "n": n,
        }
        for n in range(5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    made = init("a.parquet")
    assert made.found.corpus["id"] == "doc.key"
    assert made.found.corpus["content"] == ["doc.text"]
    assert made.found.corpus["metadata"] == {
        "doc_lang": {"from": "doc.lang", "type": "string"},
        "at": "string",
        "price": "float",
        "n": "int",
    }
    assert set(made.found.fields_left_out) == {"tags", "raw", "took"}
    assert made.found.fields_left_out["tags"].startswith("a list")
    assert made.found.fields_left_out["took"].startswith("duration")
    assert (len(made.items), made.rejects) == (5, [])
    assert (made.items[1]["at"][:10], made.items[1]["price"]) == ("2024-01-02", 1.5)


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (["2024-03-05", "2023-12-31", "2024-01-01"], """ 'day >= "2023-12-31"'"""),
        (["2024-03-05T10:00:00Z", "2023-12-31T10:00:00Z"], """ 'day >= "2023-12-31"'"""),
        (["2024-03-05T10:00+02:00", "2024-03-05T10:00-02:00"], ""),  # do not sort as text
        (["05.03.2024", "31.12.2023"], ""),
        (["2024-03-05", "soon"], ""),
    ],
)
def test_dates_stay_text_and_init_says_how_to_filter_them(tmp_path: Path, days: list[str], says: str) -> None:
    rows = "".join(f"{n},{text(n)},{day}\n" for n, day in enumerate(days))
    (tmp_path / "a.csv").write_text("id,text,day\n" + rows)
    found = init("a.csv").found
    assert found.corpus["metadata"] == {"day": "string"}
    assert [note for note in found.notes if "day" in note] == (
        [f"day has dates; Milvus holds them as text, which sorts as they do: --filter{says}"] if says else []
    )


def test_front_matter_and_partitions_become_columns(tmp_path: Path) -> None:
    for number, lang in enumerate(["en", "de", "fr"]):
        path = tmp_path / "notes" / f"lang={lang}" / f"year={2020 + number}" / f"{number}.md"
        path.parent.mkdir(parents=True)
        path.write_text(f"---\ntitle: Note {number}\nrank: {number}\ntags: [a, b]\n---\n{text(number)}\n")
    made = init("notes")
    assert made.found.corpus["metadata"] == {
        "title": "string",
        "rank": "int",
        "lang": {"partition": "lang", "type": "string"},
        "year": {"partition": "year", "type": "int"},
    }
    assert "tags" in made.found.fields_left_out
    assert [item["@content"] for item in made.items] == [f"{text(number)}\n" for number in (1, 0, 2)]
    assert [(i["title"], i["rank"], i["lang"], i["year"]) for i in made.items][1] == ("Note 0", 0, "en", 2020)


def test_fields_of_all_files_are_looked_at(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c" / "a.jsonl", records(50, year=1))
    write_jsonl(tmp_path / "c" / "b.jsonl", [{"id": f"b{n}", "text": text(n + 60), "year": "last"} for n in range(50)])
    write_jsonl(tmp_path / "c" / "c.jsonl", [{"id": f"c{n}", "text": text(n + 200), "author": "ann"} for n in range(9)])
    made = init("c")
    assert made.files == {"a.jsonl", "b.jsonl", "c.jsonl"}
    assert made.found.corpus["metadata"] == {"author": "string"}
    assert made.found.fields_left_out == {"year": "values of several types: int, string"}
    assert made.rejects == []


def test_ids_and_records_that_are_in_two_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "copies" / "all.jsonl", records(40))
    write_jsonl(tmp_path / "copies" / "some.jsonl", records(10))
    made = init("copies", output="copies.yaml")
    assert made.why == {"some.jsonl": "its records are in all.jsonl too"}
    assert (made.files, made.found.corpus["id"]) == ({"all.jsonl"}, "id")
    for name, start in (("train", 0), ("test", 500)):
        rows = [{"id": number, "text": text(number + start)} for number in range(40)]
        write_jsonl(tmp_path / "splits" / f"{name}.jsonl", rows)
    made = init("splits", output="splits.yaml")
    assert made.found.corpus["id"] == {"hash": ["text"]}
    assert "'id' is not unique" in made.found.notes[0]
    assert len({item["item_id"] for item in made.items}) == 80


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
