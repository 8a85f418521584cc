"""The Python object: index something, search it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora import configure, text, write_jsonl

from pipelines.index import Index
from schemas.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _release() -> Iterator[None]:
    yield
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_all()


def test_texts_and_files_in_a_folder_of_its_own(tmp_path: Path) -> None:
    index = Index(tmp_path / "islands")
    index.index("Japan is an island country in East Asia. It spans an archipelago of 6852 islands.")
    index.index("Bread is baked from flour, water, salt and yeast.", id="bread")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "boats.md").write_text("# Boats\n\nA harbour keeps boats from the waves.")
    report = index.index(tmp_path / "notes")
    assert (report.items.read, report.items.new, report.chunks.embedded) == (3, 1, 1)
    assert "6852" in index.search("How many islands are comprised of Japan?", k=1)[0]["text"]
    assert index.search("where ships are safe", k=1)[0]["item_id"] == "boats.md"
    report = index.index("Rye bread is baked from rye.", id="bread")
    assert (report.items.changed, report.items.read) == (1, 3)
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
    with pytest.raises(ConfigurationError, match=r"says what the corpus is.*make an Index of a folder"):
        index.index("a text")


def test_an_index_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no configuration file"):
        Index(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match=r"there is no configuration file"):
        Index(tmp_path / "none").search("x")
