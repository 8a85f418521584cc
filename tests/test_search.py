"""Searching what is served: what a search costs, follows and recovers from, and what its results say."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.gc import gc
from pipelines.reindex import reindex
from pipelines.rollback import rollback
from pipelines.search import find, search, show
from pipelines.steps.search.hits.found import Found
from pipelines.steps.search.search_options import SearchKeywords, SearchOptions
from pipelines.steps.search.searcher import Searcher
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, SpaceMismatchError
from transforms import milvus
from transforms.milvus.nearest import Hit


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a published collection of 30 texts."""
    folder = tmp_path_factory.mktemp("search")
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": str(number), "text": text(number)} for number in range(30)])
    backfill(configure(folder))
    yield folder
    milvus.release(configure(folder).collection)


@pytest.fixture
def config(corpus: Path) -> Config:
    return configure(corpus)


def item_ids(found: Found) -> list[list[str]]:
    return [[hit["item_id"] for hit in hits] for hits in found.hits]


def test_several_queries_give_what_each_gives_alone(config: Config) -> None:
    searcher = Searcher(config)
    queries = [text(3), text(7), text(21)]
    found = searcher.search(queries, 4, SearchOptions('item_id != "9"'))
    assert [ids[0] for ids in item_ids(found)] == ["3", "7", "21"]
    assert found.hits == [search(config, query, k=4, filter_expression='item_id != "9"') for query in queries]
    # More rows than a narrow filter leaves.
    narrow = searcher.search(queries, 20, SearchOptions('item_id in ["3", "4", "5"]'))
    assert [sorted(ids) for ids in item_ids(narrow)] == [["3", "4", "5"]] * 3
    assert searcher.search([], 3).hits == []
    searcher.close()


def test_model_and_client_stay_open(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    connect = milvus.connect

    def counted(*args: Any, **keys: Any) -> Any:
        opened.append("client")
        return connect(*args, **keys)

    monkeypatch.setattr("pipelines.steps.search.searcher.milvus.connect", counted)
    monkeypatch.setattr("transforms.encoders.fake.FakeModel.load", _counting(opened))
    searcher = Searcher(config)
    for number in range(20):
        assert item_ids(searcher.search([text(number)], 1)) == [[str(number)]]
    assert sorted(opened) == ["client", "model"]
    searcher.close()
    assert item_ids(searcher.search([text(1)], 1)) == [["1"]]
    assert len(opened) == 4
    searcher.close()


def _counting(opened: list[str]) -> Any:
    from transforms.encoders.fake import FakeEncoder, FakeModel

    def load(self: FakeModel, sample: Any = ()) -> FakeEncoder:
        opened.append("model")
        return FakeEncoder(self)

    return load


def test_a_lost_connection_is_opened_again(config: Config) -> None:
    searcher = Searcher(config)
    assert item_ids(searcher.search([text(5)], 1)) == [["5"]]
    milvus.release(config.collection)
    assert item_ids(searcher.search([text(6)], 1)) == [["6"]]
    milvus.release(config.collection)
    found: list[list[list[str]]] = []
    threads = [threading.Thread(target=lambda: found.append(item_ids(searcher.search([text(8)], 1)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[["8"]]] * 6
    searcher.close()


def test_closing_frees_lite_for_other_processes_unless_it_is_used(config: Config) -> None:
    from milvus_lite.db import MilvusLite

    milvus.release(config.collection)
    one, other = Searcher(config, release=True), Searcher(config, release=True)
    for searcher in (one, other):
        searcher.search([text(1)], 1)
    one.close()
    with pytest.raises(Exception, match=r"."):
        MilvusLite(config.collection.uri)
    assert item_ids(other.search([text(2)], 1)) == [["2"]]
    other.close()
    MilvusLite(config.collection.uri).close()


def test_it_follows_the_alias_and_the_configuration(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(number), "text": text(number)} for number in range(12)])
    config = configure(tmp_path)
    before = backfill(config).collection
    searcher = Searcher(config, release=True)
    assert searcher.search([text(4)], 1).metric == "COSINE"
    other = configure(
        tmp_path, encoder={"model": "fake", "dimensions": 16}, collection={"uri": "./milvus.db", "metric": "L2"}
    )
    assert reindex(other).collection != before
    with pytest.raises(SpaceMismatchError, match=r"dimensions"):
        searcher.search([text(4)], 1)
    searcher.configure(other)
    found = searcher.search([text(4), text(5)], 3)
    assert found.metric == "L2"
    assert [ids[0] for ids in item_ids(found)] == ["4", "5"]
    for hits in found.hits:
        assert [hit["score"] for hit in hits] == sorted(hit["score"] for hit in hits)
    runner = CliRunner()
    answer = runner.invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), text(4), "-k", "2", "--json"])
    assert json.loads(answer.stdout)["metric"] == "L2"
    answer = runner.invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), text(4), "-k", "2"])
    assert "L2 distance" in answer.stdout
    searcher.close()


def test_the_score_is_the_distance_whatever_the_columns_are(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hits = [Hit("3#0", 0.75, {"score": None, "text": "a"}), Hit("4#0", 0.5, {"score": 7.5, "text": "b"})]
    monkeypatch.setattr("pipelines.steps.search.searcher.milvus.search_each", lambda *_: [hits])
    metadata = Config.model_validate(
        {
            "name": "x",
            "corpus": {"paths": ["x"], "metadata": {"other": "float"}},
            "checkpoint": "x",
            "collection": {"uri": "x.db"},
        }
    ).corpus.metadata
    shadowed = config.model_copy(
        update={"corpus": config.corpus.model_copy(update={"metadata": {"score": metadata["other"]}})}
    )
    found = find(shadowed, "a")
    assert [hit["score"] for hit in found.hits[0]] == [0.75, 0.5]
    assert next(iter(found.hits[0][0])) == "score"
    show(found)
    assert "0.7500" in capsys.readouterr().out


def test_what_is_no_query_is_refused(config: Config) -> None:
    searcher = Searcher(config)
    for query, reason in (("", "blank"), (" \n", "blank"), ("a\udc80", "surrogate U\\+DC80"), (5, "type int")):
        with pytest.raises(ConfigurationError, match=rf"query 1 .*{reason}"):
            searcher.search(["a text", query], 1)  # type: ignore[list-item]
    for k in (0, 16385, "3", True):
        with pytest.raises(ConfigurationError, match=r"k is"):
            searcher.search(["a text"], k)  # type: ignore[arg-type]


def test_looking_where_nothing_is_makes_no_file(tmp_path: Path) -> None:
    config = configure(tmp_path, collection={"uri": "./deep/down/milvus.db"})
    with pytest.raises(CollectionError, match=r"there is no Milvus Lite collection at .*milvus\.db.*vecbeam backfill"):
        search(config, "a text")
    answer = CliRunner().invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), "a text"])
    assert answer.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["vecbeam.yaml"]
    # Nor do other commands that only look at what is served.
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "text": "a text"}])
    for command in (verify, rollback, gc):
        with pytest.raises(CollectionError, match=r"there is no Milvus Lite collection"):
            command(config)
    assert not (tmp_path / "deep").exists()


def test_a_search_loads_no_beam_and_an_import_changes_nothing(config: Config, corpus: Path) -> None:
    milvus.release(config.collection)
    program = f"""
import logging, os, signal, sys, warnings
def state():
    levels = {{name: logging.getLogger(name).level for name in ("", "vecbeam", "pymilvus", "apache_beam")}}
    return dict(os.environ), signal.getsignal(signal.SIGINT), levels, logging.root.handlers[:], warnings.filters[:]
before = state()
import pipelines.index
assert state() == before, "the import changed its host"
with pipelines.index.Index({str(corpus / "vecbeam.yaml")!r}) as index:
    print(index.search({text(3)!r}, 1)[0]["item_id"])
from typer.testing import CliRunner
from pipelines.cli import app
answer = CliRunner().invoke(app, ["search", {str(corpus / "vecbeam.yaml")!r}, {text(4)!r}, "-k", "1", "--json"])
print(answer.exit_code, '"item_id": "4"' in answer.stdout)
print(sorted({{"apache_beam", "torch", "sentence_transformers", "transformers"}} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.splitlines() == ["3", "0 True", "[]"], ran.stderr


def test_the_command_imports_nothing_that_a_search_does_not_use(config: Config, corpus: Path, tmp_path: Path) -> None:
    """They take longer than the search."""
    milvus.release(config.collection)
    program = f"""
import atexit, sys
from pathlib import Path
from pipelines.entry import main
sys.argv = ["vecbeam", "search", {str(corpus / "vecbeam.yaml")!r}, {text(3)!r}, "-k", "1"]

def write_loaded():
    unused = "apache_beam pandas requests scipy torch transforms.encoders.media transforms.encoders.fitted.term_model"
    Path({str(tmp_path / "loaded")!r}).write_text(" ".join(name for name in unused.split() if name in sys.modules))

atexit.register(write_loaded)
main()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "3#0" in ran.stdout
    assert (tmp_path / "loaded").read_text() == ""


def test_python_takes_each_option_of_a_search_as_a_keyword() -> None:
    assert {*SearchKeywords.__annotations__, "filter_expression"} == set(SearchOptions.__annotations__)
