"""Recommendation from what was liked and disliked, and one hit for each item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import WORDS, configure, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.search import search
from pipelines.steps.search.queries.history_file import read_history
from pipelines.steps.search.queries.query import LikeQuery, Preference, PreferenceQuery
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms import milvus
from transforms.encoders import resolve, text_inputs

LONG = " ".join(["zebra"] * 400)
"""An item of many rows."""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A published collection of 20 words, and of one text of many rows."""
    folder = tmp_path_factory.mktemp("preferences")
    records = [{"id": word, "text": word} for word in WORDS] + [{"id": "long", "text": LONG}]
    write_jsonl(folder / "corpus" / "a.jsonl", records)
    collection = {"uri": "./milvus.db", "index": {"type": "FLAT"}}
    config = configure(folder, chunk={"max_tokens": 8, "overlap_tokens": 0}, collection=collection)
    backfill(config)
    yield config
    milvus.release(config.collection)


def command(config: Config, *words: str) -> Any:
    """The JSON of a search from the command line."""
    path = str(Path(config.checkpoint).parent / "vecbeam.yaml")
    answer = CliRunner().invoke(app, ["search", path, *words, "--json"])
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


def refused(config: Config, *words: str) -> str:
    """The message of a search that is refused."""
    path = str(Path(config.checkpoint).parent / "vecbeam.yaml")
    answer = CliRunner().invoke(app, ["search", path, *words])
    assert answer.exit_code == 2, answer.stdout
    return answer.stderr


def ranking(config: Config, weights: dict[str, float]) -> list[str]:
    """All words by their cosine to a weighted sum of unit vectors."""
    vectors = resolve(config.encoder).load().encode(text_inputs(WORDS)).matrix
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = sum(weight * units[WORDS.index(word)] for word, weight in weights.items())
    return [WORDS[row] for row in np.argsort(-(units @ wanted), kind="stable")]


def test_liked_minus_disliked_is_rocchio(words: Config) -> None:
    said = command(words, "--like", "cat", "--like", "dog#0", "--not-like", "elk", "-k", "17", "--filter",
                   "item_id != 'long'")  # fmt: skip
    expected = [one for one in ranking(words, {"cat": 0.5, "dog": 0.5, "elk": -1}) if one not in ("cat", "dog", "elk")]
    assert [hit["item_id"] for hit in said["hits"]] == expected
    assert (said["like"], said["not_like"]) == (["cat", "dog#0"], ["elk"])
    query = PreferenceQuery(["cat", "dog"], ["elk"])
    assert [hit["item_id"] for hit in search(words, query, k=17, filter_expression="item_id != 'long'")] == expected
    with Index(Path(words.checkpoint).parent / "vecbeam.yaml") as index:
        assert index.search([query, query], 1)[1][0]["item_id"] == expected[0]


def test_an_item_is_the_mean_of_its_rows_and_like_takes_one(words: Config) -> None:
    rows = search(words, "zebra", k=60, filter_expression="item_id == 'long'")
    assert len(rows) > 40
    one = command(words, "--like", rows[0]["id"], "-k", "1")["hits"]
    assert one[0]["item_id"] == "long"
    assert one[0]["id"] != rows[0]["id"]
    whole = command(words, "--like", "long", "-k", "20")
    assert whole["query"] == "the row long"
    assert {hit["item_id"] for hit in whole["hits"]} == set(WORDS)
    # Of a row the other rows of its item are hidden too, where the seen are.
    hidden = command(words, "--like", rows[0]["id"], "--hide-seen", "-k", "20")["hits"]
    assert {hit["item_id"] for hit in hidden} == set(WORDS)


def test_one_hit_for_each_item_however_many_rows_it_has(words: Config) -> None:
    found = command(words, "zebra", "--by", "item", "-k", "21")["hits"]
    assert found[0]["item_id"] == "long"
    assert sorted(hit["item_id"] for hit in found) == sorted([*WORDS, "long"])
    plain = search(words, "zebra", k=5)
    assert {hit["item_id"] for hit in plain} == {"long"}
    assert found[0]["score"] == plain[0]["score"]
    with Index(Path(words.checkpoint).parent / "vecbeam.yaml") as index:
        assert index.search("zebra", 3, by="item") == found[:3]
    assert "by is 'page'" in refused(words, "zebra", "--by", "page")


def test_a_history_with_weights_and_recency(words: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "history.jsonl"
    write_jsonl(
        file,
        [
            {"id": "cat", "time": "2026-01-01"},
            {"id": "fox", "weight": 2, "time": "2026-01-31T00:00:00Z"},
            {"id": "owl", "weight": -1, "time": "2026-01-31T01:00:00+01:00"},
            {"id": "gone", "time": 1767225600},
        ],
    )
    assert [round(one.weight, 6) for one in read_history(file, 30)] == [0.5, 2, -1, 0.5]
    assert [one.weight for one in read_history(file)] == [1, 2, -1, 1]
    line = ("--history", str(file), "--half-life", "30", "--filter", "item_id != 'long'", "-k", "20")
    expected = ranking(words, {"cat": 0.2, "fox": 0.8, "owl": -1})
    assert [hit["item_id"] for hit in command(words, *line)["hits"]] == expected
    assert "1 of 4 entries of the history are not in tested: 'gone'" in caplog.text
    unseen = [one for one in expected if one not in ("cat", "fox", "owl")]
    assert [hit["item_id"] for hit in command(words, *line, "--hide-seen")["hits"]] == unseen
    table = tmp_path / "history.csv"
    table.write_text("id,weight,time\ncat,,2026-01-01\nfox,2,2026-01-31\nowl,-1,2026-01-31\n")
    assert [hit["item_id"] for hit in command(words, "--history", str(table), *line[2:])["hits"]] == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no entry"),
        ('{"id": "cat"}\nno json\n', "line 2 is not valid JSON"),
        ("[1]\n", "line 1 is not a JSON object"),
        ('{"item": "cat"}\n', "line 1 has no id"),
        ('{"id": "cat", "weight": "much"}\n', "line 1: the weight 'much' is not a finite number"),
        ('{"id": "cat", "weight": NaN}\n', "is not a finite number"),
        ('{"id": "cat", "time": "yesterday"}\n', "line 1: the time 'yesterday' is not a date"),
        ('{"id": "cat"}\n', "line 1 has no time, and --half-life needs one"),
    ],
)
def test_a_history_that_is_not_valid_is_refused_by_line(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "history.jsonl").write_text(content)
    with pytest.raises(ConfigurationError, match=says):
        read_history(tmp_path / "history.jsonl", 7)


def test_options_that_do_not_fit_are_refused(words: Config, tmp_path: Path) -> None:
    assert "no row 'nothing', and no item with that id" in refused(words, "--like", "cat", "--like", "nothing")
    assert "--not-like: tested has no row 'x'" in refused(words, "--like", "cat", "--not-like", "x")
    assert "--not-like goes with --like" in refused(words, "--not-like", "cat")
    assert "--hide-seen goes with --like" in refused(words, "cat", "--hide-seen")
    assert "--half-life goes with --history" in refused(words, "--like", "cat", "--half-life", "3")
    assert "cancel each other out" in refused(words, "--like", "cat", "--not-like", "cat")
    assert "can't read" in refused(words, "--history", str(tmp_path / "none.jsonl"))
    (tmp_path / "history.jsonl").write_text('{"id": "cat"}\n')
    assert "--half-life is 0" in refused(words, "--history", str(tmp_path / "history.jsonl"), "--half-life", "0")
    assert "are both queries" in refused(words, "--like", "cat", "--image", "a.png")
    with pytest.raises(ConfigurationError, match="nothing of what is liked is in tested"):
        search(words, PreferenceQuery(history=[Preference("gone")]))
    with pytest.raises(ConfigurationError, match="nothing liked"):
        PreferenceQuery(not_like=["cat"])
    with pytest.raises(ConfigurationError, match="tested has no row 'none'"):
        search(words, LikeQuery("none"))
