"""`vecbeam init`: which fields it makes the id, the texts and the columns, and of which types."""

from __future__ import annotations

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import text, write_jsonl
from proposals import FAKE, init, records

from pipelines.backfill import backfill
from pipelines.init import write_configuration
from pipelines.search import search
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError
from transforms.read import list_corpus

pytestmark = pytest.mark.usefixtures("init_folder")

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
