"""Outliers, likely mislabelled rows and clusters: planted ones are found, others are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora import configure, write_jsonl
from planted import ROWS, STRANGE, TOPICS, WRONG, planted, record, records
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.explore.clusters import clusters
from pipelines.explore.outliers import outliers
from pipelines.index import Index
from pipelines.steps.collection.current_rows import current_rows, rows_before
from pipelines.sync import sync
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError
from transforms import milvus
from transforms.explore.cluster_names import names_by_terms
from transforms.explore.neighbour_search import EXACT_ROWS, nearest_others
from transforms.explore.outlier_scores import local_outlier_factors, modified_z_scores, of_all
from transforms.explore.row_clusters import cluster_rows

STRANGE_IDS = {f"strange{number}" for number in range(STRANGE)}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """The planted corpus; its second snapshot has ten more rows: eight of a topic and two of none."""
    folder = tmp_path_factory.mktemp("planted")
    config = planted(folder)
    backfill(config)
    more = [record("sky", 100 + number) for number in range(8)]
    more += [{"id": f"alien{n}", "text": " ".join(f"al{n}ien{p}" for p in range(8)), "topic": "sky"} for n in range(2)]
    write_jsonl(folder / "corpus" / "b.jsonl", more)
    sync(config)
    yield config
    milvus.release(config.collection)


def items(table: pa.Table) -> list[str]:
    found: list[str] = table.column("item_id").to_pylist()
    return found


def path_of(config: Config) -> Path:
    return Path(config.collection.uri).parent / "vecbeam.yaml"


def normal(rows: int, dimensions: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_planted_outliers_are_found_and_nothing_else(config: Config) -> None:
    found = outliers(config, k=5)
    assert set(items(found.table)) == STRANGE_IDS | {"alien0", "alien1"}
    scores = found.table.column("score").to_pylist()
    assert scores == sorted(scores, reverse=True)
    assert found.figures["judged"] == 3 * ROWS + STRANGE + 10
    assert set(items(outliers(config, k=5, by="density").table)) >= STRANGE_IDS


def test_within_groups_a_row_of_another_topic_is_an_outlier(config: Config) -> None:
    found = outliers(config, k=10, group="topic", above=3)
    wrong = [row for row in found.table.to_pylist() if row["item_id"] in {f"sea{n}" for n in range(WRONG)}]
    assert len(wrong) == WRONG
    assert {(row["topic"], row["nearest_group"]) for row in wrong} == {("soil", "sea")}


def test_mislabelled_rows_are_found_with_the_label_that_fits(config: Config) -> None:
    found = outliers(config, by="label", group="topic", above=0.5)
    rows = [row for row in found.table.to_pylist() if not row["item_id"].startswith(("strange", "alien"))]
    assert {(row["item_id"], row["nearest_group"]) for row in rows} == {(f"sea{n}", "sea") for n in range(WRONG)}


def test_new_rows_are_judged_against_earlier_ones(config: Config) -> None:
    found = outliers(config, k=5, new=True)
    assert found.figures["judged"] == 10
    assert set(items(found.table)) == {"alien0", "alien1"}
    assert found.basis["earlier_rows"] == 3 * ROWS + STRANGE
    rows = current_rows(config)
    _, since = rows_before(config, rows)
    assert set(items(rows.sample("vector", among=since).rows)) >= {"alien0", "sky107"}


def test_an_edited_row_is_new_and_a_first_snapshot_has_nothing_before_it(tmp_path: Path) -> None:
    config = planted(tmp_path)
    backfill(config)
    with pytest.raises(CheckpointError, match="has no earlier snapshot of the space"):
        outliers(config, new=True)
    edited = records()
    edited[0]["text"] = "nothing like it anywhere else at all"
    write_jsonl(tmp_path / "corpus" / "a.jsonl", edited[:-1])  # one row less: rows that went are not new ones
    sync(config)
    found = outliers(config, new=True, k=3)
    assert items(found.table) == ["sea0"]
    assert found.figures["judged"] == 1
    milvus.release(config.collection)


def test_factors_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import LocalOutlierFactor

    vectors = normal(300, 8, 1)
    vectors[7] = -vectors[:50].mean(axis=0) / np.linalg.norm(vectors[:50].mean(axis=0))
    model = LocalOutlierFactor(10, metric="cosine", algorithm="brute").fit(vectors)
    assert np.allclose(local_outlier_factors(vectors, 10), -model.negative_outlier_factor_, rtol=1e-3)


def test_equal_rows_have_no_outlier_and_few_rows_are_not_judged() -> None:
    equal = np.ones((50, 4), np.float32) / 2
    assert not of_all(equal, 10).scores.any()
    assert not of_all(equal, 10, "density").scores.any()
    assert not of_all(equal[:11], 10).judged.any()
    # Most rows equal, so that the median of the deviations is 0: the one that differs is an outlier all the same.
    assert modified_z_scores(np.array([1.0] * 9 + [2.0]))[-1] > 3.5


def test_inverted_lists_find_the_nearest_rows() -> None:
    vectors = normal(EXACT_ROWS + 500, 8, 2)
    cosines, positions = nearest_others(vectors, 3)
    some = np.arange(0, len(vectors), 997)
    whole = vectors[some] @ vectors.T
    whole[np.arange(len(some)), some] = -1
    assert (positions[some, 0] == whole.argmax(axis=1)).mean() > 0.95
    assert not (positions == np.arange(len(vectors))[:, None]).any()
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_clusters_are_the_topics_named_by_their_words(config: Config) -> None:
    found = clusters(config, n=3, field="topic")
    assert found.figures["adjusted_rand"] > 0.7  # ten rows have a wrong topic, or words of none
    by_cluster: dict[str, list[str]] = {}
    for row in found.table.to_pylist():
        by_cluster.setdefault(row["name"], []).append(row["item_id"].rstrip("0123456789"))
    named = {max(set(ids), key=ids.count): name for name, ids in by_cluster.items()}
    assert set(named) == set(TOPICS)
    for topic, name in named.items():
        assert set(name.split(", ")) <= set(TOPICS[topic])
    assert sum(found.figures["sizes"].values()) == found.table.num_rows == 3 * ROWS + STRANGE + 10


def test_the_number_of_clusters_is_chosen_by_silhouette() -> None:
    centres = normal(5, 16, 3)
    vectors = np.repeat(centres, 60, axis=0) + 0.1 * normal(300, 16, 4)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = cluster_rows(vectors)
    assert len(found.sizes) == 5
    assert found.sizes == [60] * 5
    again = cluster_rows(vectors)
    assert (again.codes == found.codes).all()
    equal = cluster_rows(np.repeat(centres[:1], 20, axis=0), 4)
    assert equal.sizes == [20]


def test_one_row_is_one_cluster(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "a", "text": "one"}])
    one = configure(tmp_path)
    backfill(one)
    assert clusters(one).figures["clusters"] == 1
    with pytest.raises(ConfigurationError, match="-n: 2 clusters of 1 rows") as error:
        clusters(one, n=2)
    assert error.value.remedy == "leave -n out"
    milvus.release(one.collection)


def test_terms_that_are_in_most_rows_name_no_cluster() -> None:
    texts = ["the wave the tide"] * 5 + ["the star the moon"] * 5 + ["the seed the root"] * 5
    codes = np.repeat(np.arange(3), 5)
    assert names_by_terms(texts, codes, 3) == ["tide, wave", "moon, star", "root, seed"]
    assert names_by_terms(["", "12"], np.array([0, 1]), 2) == ["", ""]


def test_commands_print_json_and_pages_and_python_has_the_same_words(config: Config, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for command, heading in (("outliers", "Scores of all rows"), ("clusters", "Rows by cluster and topic")):
        options = ["--field", "topic", "-n", "3"] if command == "clusters" else ["-k", "5"]
        words = ["explore", command, str(path_of(config)), *options, "--json", "--html", str(page)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["rows"]
        assert heading in page.read_text()
    with Index(path_of(config)) as index:
        assert index.explore.outliers(k=5).figures["outliers"] == STRANGE + 2
        assert index.explore.clusters(n=4).figures["clusters"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["outliers", "--by", "size"], "--by: 'size' is not one of distance, density, label"),
        (["outliers", "--above", "0"], "--above: 0.0 is not a score above 0"),
        (["outliers", "--above", "nan"], "--above: nan is not a score above 0"),
        (["outliers", "--by", "label", "--group", "topic", "--above", "2"], "is not a score between 0 and 1"),
        (["outliers", "--by", "label", "--group", "topic", "-k", "3"], "-k: --by label measures no neighbours"),
        (["outliers", "--by", "label"], "--group is missing"),
        (["outliers", "--group", "colour"], "--group: rows have no column 'colour'; they have id"),
        (["outliers", "--new", "--group", "topic"], "it goes with neither --group nor another --by"),
        (["clusters", "--field", "vector"], "--field: rows have no column 'vector'"),
        (["clusters", "-n", "5000"], "-n: 5000 clusters of 134 rows"),
    ],
)
def test_wrong_options_are_refused(config: Config, words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["explore", words[0], str(path_of(config)), *words[1:]])
    assert result.exit_code == 2
    assert said in result.output
