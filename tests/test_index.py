"""The Python object: add something, search it, delete it; and what is refused costs that alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl

from pipelines.index import Index
from pipelines.steps.corpus.added_texts import RefusedTextsError, Texts
from pipelines.steps.corpus.index_arguments import is_text
from schemas.config import Corpus
from schemas.errors import ConfigurationError, CorpusError


@pytest.fixture(autouse=True)
def _release() -> Iterator[None]:
    yield
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_all()


def quick(folder: Path, *paths: str, **corpus: Any) -> Index:
    """An index in a folder of its own, with the fake encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    configure(folder, corpus={"paths": list(paths) or ["texts.jsonl"], **corpus})
    return Index(folder)


def texts_in(index_folder: Path) -> dict[str, str]:
    lines = (index_folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["id"]: record["text"] for record in map(json.loads, lines)}


def test_texts_and_files_in_a_folder_of_its_own(tmp_path: Path) -> None:
    with Index(tmp_path / "islands") as index:
        index.add("Japan is an island country in East Asia. It spans an archipelago of 6852 islands.")
        index.index("Bread is baked from flour, water, salt and yeast.", id="bread")
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "boats.md").write_text("# Boats\n\nA harbour keeps boats from the waves.")
        report = index.index(tmp_path / "notes")
        assert (report.items.read, report.items.new, report.chunks.embedded) == (3, 1, 1)
        assert "6852" in index.search("How many islands are comprised of Japan?", k=1)[0]["text"]
        assert index.search("where ships are safe", k=1)[0]["item_id"] == "boats.md"
        report = index.index("Rye bread is baked from rye.", id="bread")
        assert (report.items.changed, report.items.read) == (1, 3)
        # The open search sees what was added since.
        assert index.search("a loaf", k=1)[0]["text"] == "Rye bread is baked from rye."
        assert Index(tmp_path / "islands").search("a loaf", k=1)[0]["text"] == "Rye bread is baked from rye."
        assert index.index().chunks.embedded == 0
        assert index.verify().verify.found == 3


def test_a_configuration_says_what_the_corpus_is(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(number), "text": text(number)} for number in range(20)])
    configure(tmp_path)
    index = Index(tmp_path / "vecbeam.yaml")
    assert index.plan().items.new == 20
    assert index.index().items.new == 20
    assert index.search(text(3), k=1, filter='item_id != "4"')[0]["item_id"] == "3"
    assert [hits[0]["item_id"] for hits in index.search([text(8), text(9)], k=2)] == ["8", "9"]
    for refused in (lambda: index.index("a text"), lambda: index.add("a text"), lambda: index.delete("3")):
        with pytest.raises(ConfigurationError, match=r"says what the corpus is.*make an Index of a folder"):
            refused()


def test_an_index_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no configuration file"):
        Index(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match=r"holds nothing yet"):
        Index(tmp_path / "none").search("x")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("where", ["", "  ", "a\0b", None, 5, b"folder"])
def test_what_is_no_path_is_no_index(where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an empty name was an index of the working directory
    with pytest.raises(ConfigurationError, match="is not a path"):
        Index(where)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("some words")
    with pytest.raises(ConfigurationError, match=r"notes\.txt is a file, and an index is a folder"):
        Index(tmp_path / "notes.txt")


def test_an_index_that_holds_nothing_yet_says_so(tmp_path: Path) -> None:
    with Index(tmp_path / "new") as index:
        for command in (lambda: index.search("a text"), lambda: index.delete("a"), index.verify, index.plan):
            with pytest.raises(ConfigurationError, match=r"holds nothing yet.*add\(\)"):
                command()


@pytest.mark.parametrize("ids", [None, 1.5, True, b"a", ["a", None], {"id": "a"}])
def test_what_is_no_id_deletes_nothing(tmp_path: Path, ids: Any) -> None:
    index = quick(tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"id": "a", "text": "one"}\n{"id": "None", "text": "two"}\n')
    with pytest.raises(ConfigurationError, match="is not an id"):
        index.delete(ids)
    assert set(texts_in(tmp_path)) == {"a", "None"}


def test_bad_texts_cost_themselves_alone(tmp_path: Path) -> None:
    index = quick(tmp_path / "v", metadata={"year": "int"})
    bad: list[Any] = [
        "",
        " \t\n",
        "a\x00b",
        "a\ud800b",
        5,
        None,
        b"bytes",
        {"id": "", "text": "no id"},
        {"id": "x" * 600, "text": "a long id"},
        {"id": "y", "text": "a year", "year": "soon"},
        {"id": "z", "text": "a number", "year": float("nan")},
        {"id": "w", "body": "no text"},
        {"id": True, "text": "odd id"},
    ]
    with pytest.raises(RefusedTextsError, match=r"13 of 13 items were refused, and nothing was written.*0: EmptyText"):
        index.add(bad)
    assert not (tmp_path / "v" / "texts.jsonl").exists()
    with pytest.raises(RefusedTextsError, match=r"13 of 16 items .* the other 3 were added.*and 8 more") as caught:
        index.add(["a good one", *bad, {"id": 7, "text": "the seventh", "year": 1990}, "one more\u2028of two lines"])
    error = caught.value
    assert [refused.position for refused in error.refused] == list(range(1, 14))
    assert {refused.error for refused in error.refused} == {
        "EmptyText", "NulByte", "InvalidUtf8", "WrongType", "EmptyId", "IdTooLong", "MetadataType", "MissingField",
        "NotAnImage",
    }  # fmt: skip
    assert error.exit_code == 4
    assert (error.report.items.new, error.report.items.rejected) == (3, 0)
    assert index.search("the seventh", k=1)[0]["year"] == 1990
    # What was refused is nowhere, and holds up nothing.
    assert index.add("another good one").items.read == 4


def test_a_text_is_there_once(tmp_path: Path) -> None:
    index = quick(tmp_path / "v")
    index.add(["bee", "cat"], ids=["b", 3])
    file = tmp_path / "v" / "texts.jsonl"
    before = file.stat().st_mtime_ns
    report = index.add(["cat", "bee"], ids=["3", "b"])
    assert (report.items.unchanged, report.chunks.embedded) == (2, 0)
    assert report.items.read == 2
    with pytest.raises(RefusedTextsError, match=r"1 of 2 .*1: DuplicateId: The id 'd' is that of another text"):
        index.add(["dog", "elk"], ids=["d", "d"])
    assert texts_in(tmp_path / "v") == {"b": "bee", "3": "cat", "d": "dog"}
    before = file.stat().st_mtime_ns
    index.add(["dog"], ids=["d"])
    assert file.stat().st_mtime_ns == before
    with pytest.raises(ConfigurationError, match=r"there are 2 texts and 1 ids"):
        index.add(["dog", "elk"], ids=["d"])


def test_deleting(tmp_path: Path) -> None:
    (tmp_path / "boats.md").write_text("A harbour keeps boats.")
    index = quick(tmp_path / "v")
    index.add([text(number) for number in range(4)], ids=[str(number) for number in range(4)])
    index.index(tmp_path / "boats.md")
    # More than corpus.max_deleted allows a run by itself.
    report = index.delete(["1", "2", "never there"])
    assert (report.items.deleted, report.items.read) == (2, 3)
    assert {hit["item_id"] for hit in index.search(text(1), k=9)} == {"0", "3", "boats.md"}
    with pytest.raises(ConfigurationError, match=r"'boats.md' came from a file of corpus.paths"):
        index.delete(["0", "boats.md"])
    assert index.delete("1").items.deleted == 0
    assert index.delete(["0", "3"]).items.read == 1
    assert index.add("a new text", ids="n").items.read == 2
    only = quick(tmp_path / "w")
    only.add("a text", ids="t")
    with pytest.raises(ConfigurationError, match=r"these are all the items"):
        only.delete("t")
    assert texts_in(tmp_path / "w") == {"t": "a text"}


def test_a_corpus_that_is_refused_stays_out(tmp_path: Path) -> None:
    (tmp_path / "boats.md").write_text("A harbour keeps boats.")
    write_jsonl(tmp_path / "bad.jsonl", [{"id": str(number), "text": "" if number else "x"} for number in range(9)])
    index = quick(tmp_path / "v", str(tmp_path / "boats.md"), max_deleted=1.0)
    index.index()
    with pytest.raises(CorpusError, match=r"boats\.md"):
        index.add("of the same id", ids="boats.md")
    assert not (tmp_path / "v" / "texts.jsonl").exists()
    before = (tmp_path / "v" / "vecbeam.yaml").read_text()
    with pytest.raises(Exception, match=r"rejected"):
        index.index(tmp_path / "bad.jsonl")
    assert (tmp_path / "v" / "vecbeam.yaml").read_text() == before
    assert sorted(path.name for path in (tmp_path / "v").glob(".*.before")) == []
    assert index.add("a good text").items.read == 2


def test_what_is_a_path_is_never_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "two words").mkdir(parents=True)
    (tmp_path / "home" / "private.txt").write_text("a private note")
    monkeypatch.chdir(tmp_path / "home")
    texts = ("a sentence of words", "What is this? A question.", "two\nlines of docs/a.txt", "ends in txt")
    paths = (
        "notes",
        "docs/my notes",
        "my notes.txt",
        "My Notes.JSONL.gz",
        "*.txt",
        "two words",
        "C:\\my docs\\a b",
        "",
    )
    assert [is_text(source) for source in (*texts, *paths)] == [True] * len(texts) + [False] * len(paths)
    index = quick(tmp_path / "v")
    for source in ("notes", "docs/my notes", "my notes.txt", Path("no/such"), Path("a sentence of words")):
        with pytest.raises(ConfigurationError, match=r"there is no file or folder .*add it as a text: add"):
            index.index(source)
    for source in ("", "  ", "a\x00b"):
        with pytest.raises(ConfigurationError, match=r"is not a path"):
            index.index(source)
    for blank in ("", "   "):
        with pytest.raises(RefusedTextsError, match=r"EmptyText"):
            index.index(blank, id="x")
    (tmp_path / "home" / "deeper").mkdir()
    (tmp_path / "home" / "deeper" / "a.md").write_text("words")
    with pytest.raises(ConfigurationError, match=r"holds this index itself"):
        quick(tmp_path / "home" / "v").index(tmp_path / "home")
    assert not (tmp_path / "v" / "texts.jsonl").exists()


def test_records_make_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipelines.steps.corpus.first_configuration.ENCODER", {"model": "fake", "dimensions": 32})
    index = Index(tmp_path / "v")
    records = [
        {"text": "the first", "year": 1990, "rating": 4, "kept": True, "author": "ann", "tags": ["a"], "uri": "x"},
        {"text": "the second", "year": 2001, "rating": 4.5, "kept": False, "author": None},
    ]
    index.add(iter(records))
    metadata = {name: field.type for name, field in index.config.corpus.metadata.items()}
    assert metadata == {"year": "int", "rating": "float", "kept": "bool", "author": "string"}
    assert "does not name tags, uri: kept in texts.jsonl" in caplog.text
    hits = index.search("the first", k=2, filter="year < 2000")
    assert [(hit["year"], hit["rating"], hit["author"]) for hit in hits] == [(1990, 4.0, "ann")]


def test_two_threads_add_and_search(tmp_path: Path) -> None:
    index = quick(tmp_path / "v")
    index.add(text(0), ids="0")
    failed: list[BaseException] = []
    done = threading.Event()

    def add(some: Index, first: int) -> None:
        try:
            some.add([text(number) for number in range(first, first + 3)], [str(n) for n in range(first, first + 3)])
        except BaseException as error:
            failed.append(error)

    def look() -> None:
        while not done.is_set():
            try:
                assert index.search(text(0), k=1)[0]["item_id"] == "0"
            except BaseException as error:
                failed.append(error)
                return

    threads = [
        threading.Thread(target=add, args=(some, n)) for some, n in ((index, 1), (index, 4), (Index(tmp_path / "v"), 7))
    ]
    looking = threading.Thread(target=look)
    looking.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    looking.join()
    assert failed == []
    assert set(texts_in(tmp_path / "v")) == {str(number) for number in range(10)}
    assert {hit["item_id"] for hit in index.search(text(1), k=20)} == {str(number) for number in range(10)}


def test_the_configuration_may_change_while_it_is_open(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(number), "text": text(number)} for number in range(8)])
    configure(tmp_path)
    with Index(tmp_path / "vecbeam.yaml") as index:
        index.index()
        assert index.search(text(3), k=1)[0]["item_id"] == "3"
        configure(tmp_path, encoder={"model": "fake", "dimensions": 16})
        index.reindex()
        assert index.search(text(4), k=1)[0]["item_id"] == "4"
        (tmp_path / "vecbeam.yaml").write_text("name: 5\n")
        with pytest.raises(ConfigurationError):
            index.search(text(4))
        configure(tmp_path, encoder={"model": "fake", "dimensions": 16})
        assert index.search(text(5), k=1)[0]["item_id"] == "5"
    assert index.search(text(6), k=1)[0]["item_id"] == "6"
    index.close()


def test_lines_keep_their_order_and_foreign_ones_their_form(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_bytes(b'{"id": "a", "text": "1"}\n{"text": "2", "id": "b\\u0063"}\nno json\n{"id": 4, "text": "4"}')
    texts = Texts(file, Corpus(paths=["texts.jsonl"]))
    assert texts.among({"a", "bc", "4", "x"}) == {"a", "bc", "4"}
    texts.replace({"bc": b'{"id": "bc"}\n', "new": b'{"id": "new"}\n'})
    texts.remove({"4"})
    assert file.read_bytes() == b'{"id": "a", "text": "1"}\n{"id": "bc"}\nno json\n{"id": "new"}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["texts.jsonl"]
