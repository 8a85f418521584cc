"""BM25: vectors that Milvus makes itself, which no part has, alone and with dense ones."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.rollback import rollback
from pipelines.search import find, search
from pipelines.steps.search.hits.rank_fusion import fused
from pipelines.steps.search.queries.query import LikeQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, GateError, SpaceMismatchError
from schemas.milvus.capabilities import Server, analyzer_refusal
from transforms import milvus

TWO = {"words": {"model": "bm25"}, "meaning": {"model": "fake", "dimensions": 16}}
ALONE = {"model": "bm25"}


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    records = [{"id": f"item-{number}", "text": text(number)} for number in range(40)]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", records)
    return records


def write(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items)


def scores(query: str, texts: list[str]) -> list[float]:
    """BM25 with k1 1.2 and b 0.75 of each text, as its definition has it."""
    documents = [Counter(one.lower().split()) for one in texts]
    mean = sum(map(Counter.total, documents)) / len(documents)
    found = []
    for document in documents:
        length = 1.2 * (0.25 + 0.75 * document.total() / mean)
        total = 0.0
        for word, wanted in Counter(query.lower().split()).items():
            having = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            total += wanted * idf * document[word] * 2.2 / (document[word] + length)
        found.append(total)
    return found


def columns(tmp_path: Path) -> set[tuple[str, ...]]:
    parts = tmp_path.glob("checkpoint/tested/*/parts/*.parquet")
    return {tuple(pq.read_schema(part).names) for part in parts}


def rows(config: Config) -> list[dict[str, Any]]:
    with milvus.connected(config.collection) as connection:
        found = connection.client.query("tested", filter="", limit=100, output_fields=["id", "text"])
    return sorted(map(dict, found), key=lambda row: str(row["id"]))


def test_milvus_makes_the_vectors_and_parts_have_none(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, encoders=TWO)
    assert plan(config).chunks.value == 40
    report = backfill(config)
    assert (report.chunks.embedded, report.verify.published, report.verify.found) == (40, True, 40)
    assert (report.verify.recall_at_10, report.verify.recalls) == (1.0, {})
    [names] = columns(tmp_path)
    assert "words" not in names
    assert "meaning" in names

    texts = [item["text"] for item in items]
    found = find(config, "ant toad gnu", k=40, vector="words")
    expected = {f"item-{at}": score for at, score in enumerate(scores("ant toad gnu", texts)) if score}
    assert found.metric == "BM25"
    assert {row["item_id"]: row["score"] for row in found.hits[0]} == pytest.approx(expected, rel=1e-4)
    best = [row["score"] for row in found.hits[0]]
    assert best == sorted(best, reverse=True)
    both = find(config, "toad gnu", k=5, vector=["words", "meaning"])
    assert both.metric == "RRF"
    alone = [search(config, "toad gnu", k=100, vector=name) for name in ("words", "meaning")]
    assert [row["id"] for row in both.hits[0]] == [row["id"] for row in fused(alone, 5)]

    # A search by the words of a row; its own row is the best by its own words, and left out.
    like = search(config, LikeQuery("item-7#0"), k=40, vector="words")
    expected = {f"item-{at}#0": score for at, score in enumerate(scores(texts[7], texts)) if score and at != 7}
    assert {row["id"]: row["score"] for row in like} == pytest.approx(expected, rel=1e-4)
    # Words that no row has find none.
    assert search(config, "nowhere", vector="words") == []


def test_changes_deletions_damage_and_other_collections(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, encoders=TWO)
    backfill(config)
    assert sync(config).chunks.embedded == 0
    items[3]["text"] = "quite another text"
    write(tmp_path, items[:-1])
    report = sync(config)
    assert (report.chunks.embedded, report.chunks.loaded, report.chunks.deleted) == (1, 1, 1)
    assert [row["id"] for row in search(config, "another quite", vector="words")] == ["item-3#0"]
    assert search(config, "39", vector="words") == []
    assert verify(config).verify.missing == 0

    with milvus.connected(config.collection) as connection:
        [row] = connection.client.query("tested", filter='item_id == "item-7"', output_fields=["*"])
        changed = {name: value for name, value in row.items() if name != "words"} | {"text": "damage"}
        connection.client.upsert(milvus.served(connection, "tested"), [changed])
    with pytest.raises(GateError, match=r"1 rows damaged: they differ in text \(1\)"):
        verify(config)
    assert verify(config, repair=True).verify.damaged == 0
    assert search(config, "damage", vector="words") == []
    assert load(config, rebuild=True).verify.published
    assert rollback(config).verify.published


def test_another_dense_model_or_another_analyzer_is_another_space(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    backfill(configure(tmp_path, encoders=TWO))
    other = configure(tmp_path, encoders=TWO | {"meaning": {"model": "fake", "dimensions": 8}})
    with pytest.raises(SpaceMismatchError, match=r"meaning\.dimensions: 8 here, 16 there"):
        sync(other)
    assert reindex(other).chunks.embedded == 40
    # Words in addition to a dense vector, and without it again.
    assert reindex(configure(tmp_path, encoders={"meaning": TWO["meaning"]})).chunks.embedded == 40
    with pytest.raises(ConfigurationError, match="rows have no vector 'words'"):
        search(configure(tmp_path, encoders={"meaning": TWO["meaning"]}), "toad", vector="words")


def test_alone_it_is_full_text_search_without_a_model(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    write(tmp_path, [*items, {"id": "marks", "text": "... !?"}])
    config = configure(tmp_path, encoder=ALONE, verify={"max_rejected": 0.1})
    assert plan(config).chunks.value == 40
    report = backfill(config)
    assert (report.verify.found, report.verify.recall_at_10, report.rejects) == (40, None, {"EmptyText": 1})
    assert report.tokens.embedded == sum(len(item["text"].split()) for item in items)
    [names] = columns(tmp_path)
    assert [*names][-3:] == ["content_hash", "tokens", "tokens_dropped"]
    found = search(config, "toad gnu", k=3)
    assert [row["score"] for row in found] == pytest.approx(
        sorted(scores("toad gnu", [item["text"] for item in items]))[:-4:-1], rel=1e-4
    )
    items[5]["text"] = "a wholly new text"
    write(tmp_path, items[:30])
    report = sync(config, allow_deletes=True)
    assert (report.chunks.embedded, report.chunks.deleted) == (1, 10)
    assert [row["id"] for row in search(config, "wholly")] == ["item-5#0"]
    assert verify(config).verify.found == 30
    assert reindex(config).chunks.embedded == 0
    assert [row["text"] for row in rows(config)] == sorted(
        [item["text"] for item in items[:30]], key=lambda one: next(i["id"] for i in items if i["text"] == one) + "#0"
    )


def test_long_texts_are_cut_at_words(tmp_path: Path) -> None:
    whole = " ".join(f"word{number}." for number in range(100))
    write(tmp_path, [{"id": "long", "text": whole}, {"id": "short", "text": "short"}])
    config = configure(tmp_path, encoder=ALONE, chunk={"max_tokens": 30, "overlap_tokens": 0})
    report = backfill(config)
    assert (report.tokens.embedded, report.tokens.dropped) == (101, 0)
    found = rows(config)
    assert " ".join(row["text"] for row in sorted(found, key=lambda r: int(r["id"].split("#")[1]))[:-1]).split()
    assert max(len(row["text"].split()) for row in found) == 30
    assert search(config, "word99")[0]["item_id"] == "long"


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ({"model": "bm25", "precision": "bfloat16"}, r"encoder\.precision: bm25 has none"),
        ({"model": "bm25", "dimensions": 8}, r"encoder\.dimensions: bm25 has none"),
        ({"model": "bm25", "metric": "IP"}, r"encoder\.metric: bm25 has none"),
        ({"model": "bm25", "prompt": "passage: "}, r"encoder\.prompt: bm25 has none"),
        ({"model": "bm25", "max_tokens": 9000}, r"encoder\.max_tokens: 9000 is more than the model's 8192"),
        ({"model": "fake", "analyzer": "english"}, "analyzer is for model: bm25, and model is 'fake'"),
        ({"model": "bm25", "analyzer": "klingon"}, r"encoder\.analyzer: .*'standard', 'english' or 'chinese'"),
    ],
)
def test_what_bm25_has_not_is_refused(
    tmp_path: Path, items: list[dict[str, Any]], encoder: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        backfill(configure(tmp_path, encoder=encoder))
    assert not (tmp_path / "checkpoint").exists()


def test_two_of_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(words and more|more and words) are both bm25"):
        configure(tmp_path, encoders=TWO | {"more": {"model": "x", "family": "bm25"}})


def test_a_corpus_of_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.png").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"encoder\.model: bm25 embeds text, and the corpus has items"):
        backfill(configure(tmp_path, encoder=ALONE, corpus={"paths": ["corpus/*"], "format": "image"}))


def test_analyzers_by_server(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    assert analyzer_refusal(Server.of("v2.5.4"), "english") is None
    config = configure(tmp_path, encoders=TWO | {"words": {"model": "bm25", "analyzer": "english"}})
    for command in (plan, backfill):
        with pytest.raises(CollectionError) as caught:
            command(config)
        assert "encoders.words.analyzer: english: Milvus Lite 3.2.2 has no such analyzer" in caught.value.message
        assert "choose one of standard, or use a server that can (Milvus 2.5 or newer)" in str(caught.value.remedy)
    assert not list(tmp_path.glob("checkpoint/tested/*/parts"))


@pytest.mark.parametrize(
    ("query", "options", "says"),
    [
        ("?!", [], "the query has no letter and no digit, and BM25 compares words"),
        ("toad", ["--plus", "gnu"], "only dense vectors are added and subtracted"),
    ],
)
def test_queries_that_bm25_can_t_take(
    tmp_path: Path, items: list[dict[str, Any]], query: str, options: list[str], says: str
) -> None:
    config = configure(tmp_path, encoder=ALONE)
    backfill(config)
    milvus.release(config.collection)
    command = ["search", str(tmp_path / "vecbeam.yaml"), query, "--json", *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert says in json.loads(done.stdout)["error"]["message"]


def test_rows_without_a_dense_vector_have_no_exact_ranking(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, encoder=ALONE)
    backfill(config)
    milvus.release(config.collection)
    place = str(tmp_path / "vecbeam.yaml")
    (tmp_path / "again.yaml").write_bytes((tmp_path / "vecbeam.yaml").read_bytes())
    (tmp_path / "log.txt").write_text("toad\n")
    (tmp_path / "truth.tsv").write_text("1 0 item-7 1\n")
    files = ["--queries", str(tmp_path / "log.txt"), "--truth", str(tmp_path / "truth.tsv")]
    several = ["-c", place, "-c", str(tmp_path / "again.yaml")]
    for command, remedy in (
        (["explore", "map", place], "add a dense encoder to the configuration's encoders"),
        (["evaluate", place, *files], "add --served, which ranks by the served index"),
        (["evaluate", *several, *files], "leave this configuration out; vecbeam evaluate --served measures it alone"),
        (["compare", *several[1::2], *files[:2]], "leave this configuration out"),
    ):
        done = CliRunner().invoke(app, [*command, "--json"])
        error = json.loads(done.stdout)["error"]
        assert done.exit_code == 2
        assert "the rows have no dense vector" in error["message"]
        assert remedy in error["remedy"]


def test_an_index_in_python_searches_words(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    configure(tmp_path, encoder=ALONE)
    with Index(tmp_path / "vecbeam.yaml") as index:
        index.index()
        found = index.search(["toad 7", "gnu"], k=2)
    assert [len(hits) for hits in found] == [2, 2]
    assert found[0][0]["id"] == "item-7#0"
