"""Similarity matrices, maps and labels: values checked against the vectors, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl
from planted import ROWS, STRANGE, TOPICS, WRONG, planted
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.explore.labels import labels
from pipelines.explore.map import map_rows
from pipelines.explore.similar import similar
from pipelines.index import Index
from pipelines.steps.collection.current_rows import current_rows
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, SpaceMismatchError
from transforms import milvus
from transforms.explore.plane import by_pca, by_umap

BY_WORDS = [f"{topic}={' '.join(words)}" for topic, words in TOPICS.items()]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    config = planted(tmp_path_factory.mktemp("planted"))
    backfill(config)
    yield config
    milvus.release(config.collection)


@pytest.fixture(scope="module")
def vectors(config: Config) -> dict[str, np.ndarray]:
    sample = current_rows(config).sample("vector")
    return dict(zip(sample.rows.column("item_id").to_pylist(), sample.vectors.astype(np.float64), strict=True))


def path_of(config: Config) -> Path:
    return Path(config.collection.uri).parent / "vecbeam.yaml"


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_a_matrix_of_rows_items_and_texts(config: Config, vectors: dict[str, np.ndarray], metric: str) -> None:
    text = "wave tide coral"
    found = similar(config, ["sea1#0", "sky2", text], metric=metric)
    rows = found.table.to_pylist()
    assert [row["kind"] for row in rows] == ["row", "item", "text"]
    a, b = (vectors[one] for one in ("sea1", "sky2"))
    expected = {"cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b), "l2": np.linalg.norm(a - b), "ip": a @ b}
    assert rows[0]["sky2"] == pytest.approx(expected[metric], abs=1e-5)
    assert rows[1]["sea1#0"] == rows[0]["sky2"]
    assert rows[2][text] == pytest.approx(0 if metric == "l2" else 1, abs=1e-5)
    assert set(found.figures["nearest"][:2]) == {"sea1#0", text}


def test_texts_need_the_space_of_the_rows_and_ids_need_no_encoder(config: Config) -> None:
    other = load_config(path_of(config), ["encoder.dimensions=16"])
    assert similar(other, ["sea1", "sea2"]).table.num_rows == 2
    with pytest.raises(SpaceMismatchError, match="dimensions"):
        similar(other, ["sea1", "a text"])
    # An id of a row may be meant as a text.
    assert similar(config, ["sea1"], texts=["sky2"]).table.column("kind").to_pylist() == ["item", "text"]


def test_a_map_has_a_point_for_each_row_in_their_order(config: Config, tmp_path: Path) -> None:
    out, page = tmp_path / "map.parquet", tmp_path / "map.html"
    words = ["explore", "map", str(path_of(config)), "--color", "topic", "--out", str(out), "--html", str(page)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    table = pq.read_table(out)
    sample = current_rows(config).sample("vector")
    assert table.column("id").to_pylist() == sample.rows.column("id").to_pylist()
    points = np.stack([table.column("x").to_numpy(), table.column("y").to_numpy()], axis=1)
    centred = sample.normalised - sample.normalised.mean(axis=0)
    assert np.allclose(points.var(axis=0), np.linalg.svd(centred)[1][:2] ** 2 / len(points), rtol=1e-3)
    text = page.read_text()
    assert "scattergl" in text
    assert 'scrollZoom: figure.layout.dragmode === "pan"' in text
    assert '"dragmode":"pan"' in text
    assert "strange0#0\\u003cbr\\u003eqx0zv0" in text
    assert "https://" not in text.split("<script>")[0]
    assert '"name":"soil"' in text
    assert '"showscale":true' not in text


def test_whole_numbers_with_many_values_are_coloured_by_a_scale(config: Config) -> None:
    [(_, figure)] = map_rows(config, color="number").plots()
    assert figure.data[0].marker.showscale
    assert np.isnan(figure.data[0].marker.color).sum() == STRANGE  # rows without a number


def test_umap_keeps_topics_together_and_is_repeatable() -> None:
    pytest.importorskip("umap", reason="pip install 'vecbeam[explore]'")
    random = np.random.default_rng(0)
    centres = random.standard_normal((3, 16)).astype(np.float32)
    many = np.repeat(centres, 25, axis=0) + 0.1 * random.standard_normal((75, 16)).astype(np.float32)
    points = by_umap(many).points
    middle = points.reshape(3, 25, 2).mean(axis=1)
    nearest = ((points[:, None] - middle[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == np.repeat(np.arange(3), 25)).all()
    assert np.array_equal(points, by_umap(many).points)
    with pytest.raises(ConfigurationError, match="at least 4 rows, and there are 3"):
        by_umap(many[:3])


def test_one_row_and_equal_rows_are_points_too() -> None:
    assert by_pca(np.ones((1, 3), np.float32)).points.tolist() == [[0, 0]]
    equal = by_pca(np.ones((5, 3), np.float32))
    assert (equal.points.tolist(), equal.explained) == ([[0, 0]] * 5, None)
    assert by_pca(np.array([[1.0], [3.0]], np.float32)).points[:, 0].tolist() in ([-1, 1], [1, -1])


def test_labels_by_their_texts_with_accuracy_and_confusion(config: Config) -> None:
    found = labels(config, BY_WORDS, truth="topic")
    assert found.figures["accuracy"] == pytest.approx((3 * ROWS - WRONG) / (3 * ROWS + STRANGE), abs=0.03)
    assert found.figures["confusion"]["soil"]["sea"] >= WRONG
    assert found.figures["confusion"]["sky"]["sky"] >= ROWS - 1
    rows = found.table.to_pylist()
    assert [row["right"] for row in rows] == sorted(row["right"] for row in rows)
    assert {f"sea{n}" for n in range(WRONG)} <= {row["item_id"] for row in rows if not row["right"]}


def test_labels_by_examples_leave_the_examples_out_of_the_accuracy(config: Config, tmp_path: Path) -> None:
    known = [{"id": f"{topic}{number}", "label": topic} for topic in TOPICS for number in (10, 11)]
    known += [{"id": "sky12#0", "label": "sky"}, {"text": "wheat barley", "label": "soil"}]
    path = write_jsonl(tmp_path / "labelled.jsonl", known)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors write it
    found = labels(config, examples=path, truth="topic")
    assert found.figures["counted"] == 3 * ROWS + STRANGE - 7
    assert found.figures["accuracy"] > 0.85  # eight rows have a wrong topic, or words of none
    assert sum(found.figures["labels"].values()) == 3 * ROWS + STRANGE
    few = labels(config, ["sea=wave tide coral", "sky=star moon sun"], truth="topic")
    assert few.figures["counted"] < 2 * ROWS + STRANGE
    assert "have another topic than one of the labels" in few.notes[0]


def test_ids_and_labels_of_examples_may_be_whole_numbers(tmp_path: Path) -> None:
    texts = ["wave tide", "tide coral", "coral wave", "star moon", "moon sun", "sun star"]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": n, "text": text} for n, text in enumerate(texts)])
    numbered = configure(tmp_path, chunk=False, encoder={"model": "fake", "dimensions": 48})
    backfill(numbered)
    milvus.release(numbered.collection)
    examples = write_jsonl(tmp_path / "labelled.jsonl", [{"id": 0, "label": 7}, {"id": 3, "label": 8}])
    command = ["explore", "labels", str(path_of(numbered)), "--examples", str(examples), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = {row["item_id"]: row["label"] for row in json.loads(done.stdout)["rows"]}
    assert (found["0"], found["3"]) == ("7", "8")
    assert set(found.values()) == {"7", "8"}
    with pytest.raises(ConfigurationError, match=r"line 1: id is True, not a text"):
        labels(numbered, examples=write_jsonl(tmp_path / "wrong.jsonl", [{"id": True, "label": 7}]))


def test_python_has_the_same_words(config: Config) -> None:
    with Index(path_of(config)) as index:
        assert index.explore.similar("sea1", "sea2", metric="ip").figures["metric"] == "ip"
        assert index.explore.map().table.num_rows == 3 * ROWS + STRANGE
        assert index.explore.labels(*BY_WORDS).figures["by"] == "texts"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["similar", "CONFIG", "sea1"], "1 rows and texts to compare, where 2 to 200 are expected"),
        (["similar", "CONFIG", "sea1", "sea1"], "'sea1' is named twice"),
        (["similar", "CONFIG", "sea1", " "], "a text to compare is blank"),
        (["similar", "CONFIG", "sea1", "sea2", "--metric", "dot"], "--metric: 'dot' is not one of cosine, l2, ip"),
        (["map", "CONFIG", "--by", "tsne"], "--by: 'tsne' is not one of pca, umap"),
        (["map", "CONFIG", "--color", "hue"], "--color: rows have no column 'hue'"),
        (["labels", "CONFIG"], "labels are named by --label or by --examples"),
        (["labels", "CONFIG", "--label", "a"], "--label has one label, 'a'"),
        (["labels", "CONFIG", "--label", "a", "--label", "a=b"], "--label: 'a' is named twice"),
        (["labels", "CONFIG", "--label", "a", "--label", "b="], "--label: 'b=' is blank"),
        (["labels", "CONFIG", "--label", "a", "--label", "b", "--template", "x"], "--template: 'x' does not have {}"),
        (["labels", "CONFIG", "--label", "a", "--label", "b", "--truth", "topic"], "no row to be counted has one of"),
        (["labels", "CONFIG", "--label", "a", "--examples", "x.jsonl"], "not by both"),
        (["labels", "CONFIG", "--examples", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
    ],
)
def test_wrong_options_are_refused(config: Config, words: list[str], said: str) -> None:
    given = [str(path_of(config)) if word == "CONFIG" else word for word in words]
    result = CliRunner().invoke(app, ["explore", *given])
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["{"], "line 1 is not JSON"),
        (['{"id": "sea1"}'], "line 1: label is None, not a text"),
        (['{"id": "sea1", "text": "a", "label": "x"}'], "either id or text"),
        (['{"id": "sea1", "label": "x"}', "", '{"id": "sea1", "label": "y"}'], "line 3: 'sea1' is in line 1 too"),
        (['{"id": "sea1", "label": "x"}'], "has one label, 'x'"),
        ([""], "has no label"),
        (['{"id": "sea1", "label": "x"}', '{"id": "gone", "label": "y"}'], "1 of 2 ids are of no row or item: gone"),
    ],
)
def test_wrong_examples_are_refused_with_their_line(
    config: Config, tmp_path: Path, lines: list[str], said: str
) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigurationError) as refused:
        labels(config, examples=path)
    assert said in str(refused.value)
    assert json.dumps(refused.value.facts())
