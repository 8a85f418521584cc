"""`vecbeam evaluate`: its figures against ir-measures called directly, files that it reads and refuses, known items."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from corpora import WORDS, configure, write_jsonl
from drawings import write_drawings
from open_clip_model import save_open_clip
from PIL import Image
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.evaluate import evaluate
from pipelines.index import Index
from pipelines.steps.collection.current_rows import current_rows
from pipelines.steps.search.queries.query_model import query_encoder
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import CheckpointError, CollectionError, ConfigurationError, SpaceMismatchError
from transforms import milvus
from transforms.encoders import text_inputs
from transforms.quality.bootstrap import intervals
from transforms.quality.exact_ranking import rank_items

DOCUMENTS, QUERIES = 60, 30


def sentence(number: int, words: int = 9) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, words, replace=False)) + f" n{number}."


def document(number: int) -> str:
    return " ".join(sentence(10 * number + part) for part in range(4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of documents with several rows each, and queries with grades in three styles."""
    folder = tmp_path_factory.mktemp("evaluated")
    records = [{"id": f"d{n}", "text": document(n), "title": sentence(10 * n)} for n in range(DOCUMENTS)]
    write_jsonl(folder / "corpus" / "a.jsonl", records)
    random = np.random.default_rng(1)
    truth = {f"q{n}": {f"d{n}": 2, f"d{random.integers(DOCUMENTS)}": 1, f"d{59 - n}": 0} for n in range(QUERIES)}
    texts = {f"q{n}": " ".join(random.permutation(sentence(10 * n + 1).split())[:6]) for n in range(QUERIES)}
    slices = {name: "odd" if int(name[1:]) % 2 else "even" for name in texts}
    write_jsonl(folder / "beir.jsonl", [{"_id": name, "text": text, "metadata": {}} for name, text in texts.items()])
    write_jsonl(
        folder / "own.jsonl", [{"id": name, "text": text, "slice": slices[name]} for name, text in texts.items()]
    )
    (folder / "queries.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in texts.items()))
    lines = [(name, item, grade) for name, grades in truth.items() for item, grade in grades.items()]
    (folder / "beir.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{a}\t{b}\t{c}\n" for a, b, c in lines))
    (folder / "trec.qrels").write_text("".join(f"{a} 0 {b} {c}\n" for a, b, c in lines))
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Iterator[Config]:
    corpus = {"paths": ["corpus/*"], "metadata": {"title": "string"}}
    config = configure(folder, chunk={"max_tokens": 32, "overlap_tokens": 0}, corpus=corpus)
    backfill(config)
    yield config
    milvus.release(config.collection)


def directly(config: Config, folder: Path) -> dict[str, float]:
    """The figures of ir-measures over all scores, without vecbeam's ranking."""
    queries = [json.loads(line) for line in (folder / "own.jsonl").read_text().splitlines()]
    vectors = query_encoder(config).encode(text_inputs([one["text"] for one in queries]), query=True).matrix
    run: dict[str, dict[str, float]] = {one["id"]: {} for one in queries}
    rows = current_rows(config).sample("vector")
    for name, vector in zip(run, vectors, strict=True):
        for item, score in zip(rows.rows.column("item_id").to_pylist(), rows.vectors @ vector, strict=True):
            run[name][item] = max(run[name].get(item, -2), float(score))
    measures = {"ndcg_at_10": "nDCG@10", "recall_at_10": "R@10", "recall_at_100": "R@100", "mrr": "RR"}
    truth = json.loads((folder / "truth.json").read_text())
    found = ir_measures.calc_aggregate([ir_measures.parse_measure(one) for one in measures.values()], truth, run)
    return {name: found[ir_measures.parse_measure(one)] for name, one in measures.items()}


def test_the_figures_are_those_of_ir_measures_for_each_style_of_file(config: Config, folder: Path) -> None:
    wanted = directly(config, folder)
    assert 0.2 < wanted["ndcg_at_10"] < 0.95
    assert len(current_rows(config)) > 1.5 * DOCUMENTS
    for queries, truth in (("own.jsonl", "beir.tsv"), ("beir.jsonl", "trec.qrels"), ("queries.tsv", "trec.qrels")):
        found = evaluate(config, queries=folder / queries, truth=folder / truth)
        assert found.figures["queries"] == QUERIES
        for name, value in wanted.items():
            assert found.figures[name]["value"] == pytest.approx(value, abs=1e-4)
            assert found.figures[name]["low"] <= value + 1e-4
            assert found.figures[name]["high"] >= value - 1e-4


def test_the_served_index_is_measured_next_to_exact_search(config: Config, folder: Path) -> None:
    files = {"queries": folder / "own.jsonl", "truth": folder / "trec.qrels"}
    found = evaluate(config, **files, served=True)
    assert found.figures["ranking"] == "the served index"
    assert found.figures["exact"]["ndcg_at_10"] == pytest.approx(directly(config, folder)["ndcg_at_10"], abs=1e-4)
    # 240 rows: HNSW finds all of them.
    assert found.figures["ndcg_at_10"]["value"] == pytest.approx(found.figures["exact"]["ndcg_at_10"], abs=1e-4)
    assert found.table.equals(evaluate(config, **files).table)


def test_what_is_served_of_another_model_or_other_items_is_said(
    config: Config, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = changed(folder, tmp_path, "t.tsv", "q1\td1\t1\nq1\tgone\t1\n")
    found = evaluate(config, queries=folder / "own.jsonl", truth=truth, served=True)
    assert any(note.startswith("1 of 2 relevant items are not in what is served") for note in found.notes)
    # Before anything is ranked: a checkpoint may be large.
    monkeypatch.setattr("pipelines.steps.quality.configured_rows.rank_exactly", None)
    for change in ("encoder.dimensions=24", "encoder.max_tokens=40"):
        other = load_config(folder / "vecbeam.yaml", [change])
        with pytest.raises(SpaceMismatchError, match=r"of space \w+, the configuration's encoder fake is of space"):
            evaluate(other, queries=folder / "own.jsonl", truth=folder / "beir.tsv", served=True)


def test_the_worst_queries_come_first_with_the_ranks_of_their_relevant_items(config: Config, folder: Path) -> None:
    found = evaluate(config, queries=folder / "own.jsonl", truth=folder / "beir.tsv")
    rows = found.table.to_pylist()
    assert [row["ndcg_at_10"] for row in rows] == sorted(row["ndcg_at_10"] for row in rows)
    truth = json.loads((folder / "truth.json").read_text())
    for row in rows:
        assert row["relevant"] == len(row["ranks"]) == sum(grade > 0 for grade in truth[row["query"]].values())
        assert row["mrr"] == pytest.approx(1 / row["ranks"][0])
    slices = {row["slice"]: row for row in found.tables["slices"].to_pylist()}
    assert {name: row["queries"] for name, row in slices.items()} == {"even": 15, "odd": 15}
    odd = [row["ndcg_at_10"] for row in rows if row["slice"] == "odd"]
    assert slices["odd"]["ndcg_at_10"] == pytest.approx(np.mean(odd))
    assert slices["odd"]["low"] < slices["odd"]["ndcg_at_10"] < slices["odd"]["high"]


def test_the_command_prints_json_and_writes_a_page_and_a_file(config: Config, folder: Path, tmp_path: Path) -> None:
    files = ["--queries", str(folder / "own.jsonl"), "--truth", str(folder / "beir.tsv")]
    command = ["evaluate", str(folder / "vecbeam.yaml"), *files]
    written = ["--out", str(tmp_path / "q.jsonl"), "--html", str(tmp_path / "page.html")]
    result = CliRunner().invoke(app, [*command, *written, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ndcg_at_10"]["value"] == pytest.approx(directly(config, folder)["ndcg_at_10"], abs=1e-4)
    assert [row["slice"] for row in found["slices"]] == ["even", "odd"]
    assert [json.loads(line)["query"] for line in (tmp_path / "q.jsonl").read_text().splitlines()] == [
        row["query"] for row in found["rows"]
    ]
    slices = [json.loads(line)["slice"] for line in (tmp_path / "q-slices.jsonl").read_text().splitlines()]
    assert slices == ["even", "odd"]
    page = (tmp_path / "page.html").read_text()
    assert "Queries by nDCG@10" in page
    assert "<h2>Slices</h2>" in page
    text = CliRunner().invoke(app, command).stdout
    assert "ndcg at 10" in text
    assert "slices:" in text
    # Without files, those of the gate.
    gate = {"queries": files[1], "truth": files[3], "ndcg_at_10": 0.1}
    gated = [word for key, value in gate.items() for word in ("--set", f"verify.{key}={value}")]
    assert CliRunner().invoke(app, [*command[:2], *gated]).stdout == text


def test_python_has_the_same_words(config: Config, folder: Path) -> None:
    with Index(folder / "vecbeam.yaml") as index:
        found = index.evaluate(queries=folder / "own.jsonl", truth=folder / "beir.tsv")
    assert found.figures["queries"] == QUERIES


@pytest.mark.parametrize("options", [{"title": "title"}, {}])
def test_known_items_are_found_by_title_or_by_a_sentence_left_out(config: Config, options: dict[str, str]) -> None:
    first, again, other = (evaluate(config, known_items=20, seed=seed, **options) for seed in (1, 1, 2))
    assert first.table.equals(again.table)
    assert first.table.column("query") != other.table.column("query")
    assert first.figures["queries"] == 20
    assert first.notes[0].startswith("known items: ")
    texts = {f"d{n}": document(n) for n in range(DOCUMENTS)}
    assert all(row["content"] in texts[row["query"]] for row in first.table.to_pylist())
    # A title is a sentence of the text; a sentence that is left out is in no row.
    assert (first.figures["mrr"]["value"] > 0.5) is bool(options)


def changed(folder: Path, tmp_path: Path, name: str, text: bytes | str) -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no query"),
        ("\n \n", "has no query"),
        ('{"id": "a", "text": "ask"}\n{"id": "a", "text": "bee"}', "line 2: the query id 'a' is on line 1 already"),
        ('{"id": "a", "text": "ask"}\n{"id": "b", "te', "line 2 is not valid JSON"),
        ('["a", "ask"]', "line 1 is not a JSON object"),
        ('{"text": "ask"}', "line 1 has no id"),
        ('{"id": true, "text": "ask"}', "line 1 has no id"),
        ('{"id": "a", "text": 7}', "line 1: the query 'a' has a text of type int"),
        ('{"id": "a", "question": "ask"}', "line 1: the query 'a' has no text"),
        ('{"id": "a", "text": "  "}', "line 1: the query 'a' is blank"),
        ('{"id": "a", "text": "na\xefve"}'.encode("latin1"), "line 1 is not valid UTF-8"),
        ('{"id": "a", "text": "ask"}'.encode("utf-16"), "line 1 is not valid UTF-8"),
        ('{"id": "a", "text": "ask"}'.encode("utf-16-le"), "has a NUL character"),
        ('{"id": "other", "text": "ask"}', "has no relevant item for any of the 1 queries"),
        ('{"id": "q1", "image": "a.jpg"}', "the query 'q1' is of modality image, the encoder embeds text"),
    ],
)
def test_wrong_queries_are_refused(config: Config, folder: Path, tmp_path: Path, text: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        evaluate(config, queries=changed(folder, tmp_path, "q.jsonl", text), truth=folder / "beir.tsv")
    assert said in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no grade"),
        ("query-id\tcorpus-id\tscore\n", "has no grade"),
        ("q1\td1\t1\nq1\td2\tgood\n", "line 2: the grade 'good' is not a number"),
        ("q1\td1\tnan\n", "line 1: the grade 'nan' is not a number"),
        ("q1 0 d1 -1\n", "line 1: the grade -1 is negative"),
        ("q1 0 d1 0.5\n", "line 1: the grade 0.5 is not a whole number"),
        ("q1 0 d1 2000000000\n", "line 1: the grade 2000000000 is above 1,000"),
        ("q1 d1\n", "line 1 has 2 fields"),
        ("q1\td1\t1\nq1\td1\t2\n", "line 2: the item 'd1' has the grade 1 for the query 'q1', and here 2"),
        ("q1\td1\t0\n", "has no relevant item"),
        ("q1\telsewhere\t1\n", "the corpus has none of its 1 relevant items, for example elsewhere"),
        (b"\xff\xfe", "is not valid UTF-8"),
    ],
)
def test_wrong_truth_is_refused(config: Config, folder: Path, tmp_path: Path, text: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        evaluate(config, queries=folder / "own.jsonl", truth=changed(folder, tmp_path, "t.tsv", text))
    assert said in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--queries and --truth: not given"),
        (["--queries", "{}/own.jsonl"], "--truth: not given"),
        (["--queries", "{}/own.jsonl", "--truth", "{}/none.tsv"], "there is no file"),
        (["--queries", "{}/corpus", "--truth", "{}/beir.tsv"], "is a folder"),
        (["--known-items", "5", "--truth", "{}/beir.tsv"], "--known-items makes queries"),
        (["--known-items", "-5"], "--known-items: -5 is not a number of queries"),
        (["--known-items", "5", "--title", "subject"], "--title: rows have no column 'subject'"),
        (["--title", "title"], "--title names a column for known-item queries"),
        (["--known-items", "5", "-c", "{}/vecbeam.yaml"], "CONFIG: -c names each configuration that is compared"),
        (["--known-items", "5", "--vector", "photo"], "rows have no vector 'photo'"),
    ],
)
def test_wrong_options_are_refused(config: Config, folder: Path, options: list[str], said: str) -> None:
    given = [one.format(folder) for one in options]
    result = CliRunner().invoke(app, ["evaluate", str(folder / "vecbeam.yaml"), *given])
    assert result.exit_code == 2
    assert said in result.output


def test_one_query_has_no_interval(config: Config, folder: Path, tmp_path: Path) -> None:
    truth = changed(folder, tmp_path, "t.tsv", "q1\td1\t1\n")
    found = evaluate(config, queries=folder / "own.jsonl", truth=truth)
    value = found.figures["ndcg_at_10"]["value"]
    assert f"ndcg at 10      value {value:.4f}\n" in found.text()
    assert any(note.startswith("one query tells nothing") for note in found.notes)


def test_what_does_not_count_is_said(config: Config, folder: Path, tmp_path: Path) -> None:
    text = '{"id": "q1", "text": "' + "ask " * 300 + '"}\n{"id": "q2", "text": "bee"}\n{"id": "new", "text": "cat"}\n'
    queries = changed(folder, tmp_path, "q.jsonl", "\ufeff" + text)
    truth = changed(folder, tmp_path, "t.tsv", "q1\td1\t1\nq1\tgone\t1\nq2\td2\t0\nq9\td2\t1\n")
    found = evaluate(config, queries=queries, truth=truth)
    said = " | ".join(found.notes)
    assert "1 queries of" in said and "have no entry in" in said  # noqa: PT018
    assert "1 queries have no relevant item" in said
    assert "1 queries of" in said and "are not in" in said  # noqa: PT018
    assert "1 of 2 relevant items are not in the corpus and count as not found, the first: gone" in said
    assert "1 queries were cut: tokens over the encoder's limit" in said
    assert "one query tells nothing about others" in said
    assert found.figures["ndcg_at_10"]["low"] is None
    assert found.table.to_pylist()[0]["recall_at_100"] == 0.5


def test_a_title_that_several_items_have_is_no_known_item_query(tmp_path: Path) -> None:
    records = [{"id": f"d{n}", "text": document(n), "title": "Notes" if n < 4 else sentence(n)} for n in range(9)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    corpus = {"paths": ["corpus/*"], "metadata": {"title": "string"}}
    config = configure(tmp_path, chunk={"max_tokens": 32, "overlap_tokens": 0}, corpus=corpus)
    backfill(config)
    found = evaluate(config, known_items=9, title="title")
    assert found.figures["queries"] == 5
    assert "4 items are left out, whose title another item has too" in found.notes[0]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [record | {"title": "Notes"} for record in records])
    sync(config)
    with pytest.raises(ConfigurationError, match="of 9 items, each has the title of another one, for example 'Notes'"):
        evaluate(config, known_items=9, title="title")
    milvus.release(config.collection)


def test_nothing_to_evaluate_is_refused(tmp_path: Path, folder: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "d1", "text": "ask bee"}])
    files: dict[str, Any] = {"queries": folder / "own.jsonl", "truth": folder / "beir.tsv"}
    config = configure(tmp_path, chunk=False)
    with pytest.raises(CheckpointError, match="no snapshot"):
        evaluate(config, **files)
    with pytest.raises(CollectionError):
        evaluate(config, **files, served=True)


def test_exact_ranking_is_that_of_all_scores_however_the_rows_are_cut() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((900, 8)).astype(np.float32)
    queries = random.standard_normal((20, 8)).astype(np.float32)
    items = np.array([f"i{n // 3}" for n in range(900)])
    items[800:850] = items[:50]  # rows of an item that lie apart
    for metric in ("COSINE", "IP", "L2"):
        rows = ((pa.array(items[at : at + 70]), vectors[at : at + 70]) for at in range(0, 900, 70))
        for query, found in zip(queries, rank_items(rows, queries, metric, 30), strict=True):
            scores = {
                "COSINE": vectors @ query / np.linalg.norm(vectors, axis=1),
                "IP": vectors @ query,
                "L2": -((vectors - query) ** 2).sum(axis=1),
            }[metric]
            assert found == list(dict.fromkeys(items[np.argsort(-scores)].tolist()))[:30]
    assert rank_items([(pa.array(["a", "a", "b"]), vectors[:3])], queries[:1], "IP")[0] in (["a", "b"], ["b", "a"])


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        [one] = intervals(random.beta(0.4, 0.6, (100, 1)), trial)
        assert one.low is not None and one.high is not None  # noqa: PT018
        covered += one.low <= 0.4 <= one.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_example_of_the_guide_runs(
    config: Config, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = Path(__file__).parent.parent / "docs" / "guides" / "evaluate.md"
    example, _ = re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "queries.jsonl").write_bytes((folder / "own.jsonl").read_bytes())
    (folder / "qrels.tsv").write_bytes((folder / "beir.tsv").read_bytes())
    monkeypatch.chdir(folder)
    exec(compile(example, "evaluate.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[0]) > 0


def test_files_are_queries_beside_texts_where_the_encoder_embeds_them(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    model = save_open_clip(tmp_path / "model")
    paths = write_drawings(tmp_path / "images", 20)
    index = {"uri": "./milvus.db", "index": {"type": "FLAT"}}
    config = configure(tmp_path, corpus={"paths": ["images/*.png"]}, encoder={"model": str(model)}, collection=index)
    backfill(config)
    (tmp_path / "given" / "files").mkdir(parents=True)
    for path in paths[:12]:
        Image.open(path).save(tmp_path / "given" / "files" / f"{path.stem}.bmp")
    queries = [{"id": path.stem, "image": f"files/{path.stem}.bmp"} for path in paths[:12]]
    file = write_jsonl(tmp_path / "given" / "q.jsonl", [*queries, {"id": "text", "text": "a red circle"}])
    truth = tmp_path / "truth.tsv"
    truth.write_text("".join(f"{path.stem}\t{path.name}\t1\n" for path in paths[:12]) + f"text\t{paths[0].name}\t1\n")
    for served in (False, True):
        found = evaluate(config, queries=file, truth=truth, served=served)
        assert found.figures["queries"] == 13
        own = [row["mrr"] for row in found.table.to_pylist() if row["query"] != "text"]
        assert own == [1.0] * 12
    (tmp_path / "given" / "files" / f"{paths[0].stem}.bmp").write_bytes(b"damaged")
    found = evaluate(config, queries=file, truth=truth)
    assert any("1 queries find nothing" in note and paths[0].stem in note for note in found.notes)
    sound = write_jsonl(tmp_path / "s.jsonl", [{"id": "text", "audio": "a.wav"}])
    with pytest.raises(
        ConfigurationError, match="the query 'text' is of modality audio, the encoder embeds image, text"
    ):
        evaluate(config, queries=sound, truth=truth)
    milvus.release(config.collection)
