"""`evaluate -c` and `compare`: several configurations of one corpus, with labels and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.csv as csv
import pytest
from corpora import WORDS, configure, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.compare import compare
from pipelines.evaluate import evaluate, evaluate_each
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms import milvus
from transforms.quality.rank_overlap import overlap, rank_biased_overlap

ITEMS = 40


def words(number: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, 6, replace=False)) + f" n{number}"


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Config, Config]]:
    """Two configurations of one corpus: vectors of 48 and of 4 dimensions."""
    folder = tmp_path_factory.mktemp("compared")
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": words(n)} for n in range(ITEMS)])
    write_jsonl(folder / "q.jsonl", [{"id": f"q{n}", "text": words(n)[:-4]} for n in range(ITEMS)])
    (folder / "log.txt").write_text("".join(words(n)[:-4] + "\n" for n in range(20)))
    (folder / "t.tsv").write_text("".join(f"q{n} 0 d{n} 1\n" for n in range(ITEMS)))
    made = []
    for name, dimensions in (("good", 48), ("bad", 4)):
        config = configure(folder, name=name, chunk=False, encoder={"model": "fake", "dimensions": dimensions})
        backfill(config)
        (folder / "vecbeam.yaml").rename(folder / f"{name}.yaml")
        made.append(config)
    yield folder, made[0], made[1]
    milvus.release(made[0].collection)


def test_configurations_are_in_one_table_with_a_paired_test(configs: tuple[Path, Config, Config]) -> None:
    folder, good, bad = configs
    files = ["--queries", str(folder / "q.jsonl"), "--truth", str(folder / "t.tsv")]
    several = ["-c", str(folder / "good.yaml"), "-c", str(folder / "bad.yaml")]
    out = ["--out", str(folder / "found.csv")]
    result = CliRunner().invoke(app, ["evaluate", *several, *files, *out, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    written = csv.read_csv(folder / "found-configurations.csv").to_pylist()
    assert [row["ndcg_at_10"] for row in written] == [row["ndcg_at_10"] for row in found["configurations"]]
    first, second = found["configurations"]
    alone = [evaluate(one, queries=folder / "q.jsonl", truth=folder / "t.tsv") for one in (good, bad)]
    for row, one in zip((first, second), alone, strict=True):
        assert row["ndcg_at_10"] == one.figures["ndcg_at_10"]["value"]
    assert (first["dimensions"], second["dimensions"], first["rows"], first["difference"]) == (48, 4, ITEMS, None)
    assert second["difference"] == pytest.approx(second["ndcg_at_10"] - first["ndcg_at_10"], abs=1e-4)
    assert second["low"] < second["difference"] < second["high"] < 0
    assert second["lost"] > second["won"]
    assert first["index_mb_estimated"] > second["index_mb_estimated"]
    scores = [(row[several[1]], row[several[3]]) for row in found["rows"]]
    assert sum(a > b for a, b in scores) == second["lost"]
    assert abs(np.subtract(*scores[0])) == max(abs(a - b) for a, b in scores)


def test_different_corpora_are_refused(configs: tuple[Path, Config, Config], tmp_path: Path) -> None:
    folder, good, _ = configs
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": words(n)} for n in range(3, ITEMS + 1)])
    other = configure(tmp_path, chunk=False)
    backfill(other)
    files = {"queries": folder / "q.jsonl", "truth": folder / "t.tsv"}
    with pytest.raises(ConfigurationError, match="a and b are over different corpora: 3 items of 40 are in the first"):
        evaluate_each({"a": good, "b": other}, **files)
    note = "over different corpora: 3 items of 40 are in the first alone, 1 of 38 in the second alone"
    assert compare(good, other, queries=folder / "log.txt").notes == [f"the configurations are {note}"]
    milvus.release(other.collection)
    with pytest.raises(ConfigurationError, match="one configuration can't be compared"):
        evaluate_each({"a": good}, **files)
    with pytest.raises(ConfigurationError, match="--served: several"):
        evaluate_each({"a": good, "b": good}, **files, served=True)
    with pytest.raises(ConfigurationError, match="name a column with --title"):
        evaluate_each({"a": good, "b": good}, known_items=5)


def test_answers_are_compared_without_labels(configs: tuple[Path, Config, Config]) -> None:
    folder, good, _ = configs
    command = ["compare", str(folder / "good.yaml"), str(folder / "bad.yaml"), "--queries", str(folder / "log.txt")]
    result = CliRunner().invoke(app, [*command, "-k", "3", "--json", "--out", str(folder / "moved.jsonl")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["queries"], len(found["rows"])) == (20, 20)
    for row in found["rows"]:
        assert row["overlap_at_3"] == pytest.approx(len({*row["old"]} & {*row["new"]}) / 3)
        assert len(row["old"]) == len(row["new"]) == 3
    assert [row["rbo"] for row in found["rows"]] == sorted(row["rbo"] for row in found["rows"])
    assert found["overlap_at_3"]["value"] == pytest.approx(
        np.mean([row["overlap_at_3"] for row in found["rows"]]), abs=1e-4
    )
    old, new = ({item for row in found["rows"] for item in row[side]} for side in ("old", "new"))
    assert [row["item_id"] for row in found["lost"]] == sorted(old - new)
    assert found["no_longer_reached"] == len(old - new) > 0
    assert len((folder / "moved-lost.jsonl").read_text().splitlines()) == len(old - new)
    same = compare(good, good, queries=folder / "log.txt")
    assert not same.notes
    assert "no longer reached 0\n" in same.text()
    assert same.figures["rbo"]["value"] == same.figures["overlap_at_10"]["value"] == 1
    assert (same.figures["same_order"], same.figures["no_longer_reached"]) == (20, 0)
    assert "rbo" in CliRunner().invoke(app, command).stdout


def test_wrong_options_of_compare_are_refused(configs: tuple[Path, Config, Config]) -> None:
    folder, good, bad = configs
    with pytest.raises(ConfigurationError, match="-k: 0 is not a number from 1 to 100"):
        compare(good, bad, queries=folder / "log.txt", k=0)
    with pytest.raises(ConfigurationError, match="--queries: not given"):
        compare(good, bad, queries="")
    with pytest.raises(ConfigurationError, match="there is no file"):
        compare(good, bad, queries=folder / "nothing.txt")


def test_rank_biased_overlap_is_that_of_its_definition() -> None:
    first, second, p = list("abcdefghij"), list("bacdxefghy"), 0.9
    agreements = [len({*first[:d]} & {*second[:d]}) / d for d in range(1, 11)]
    wanted = agreements[-1] * p**10 + (1 - p) / p * sum(one * p**d for d, one in enumerate(agreements, 1))
    assert rank_biased_overlap(first, second, p) == pytest.approx(wanted)
    assert rank_biased_overlap(first, first[::-1]) < rank_biased_overlap(first, second) < 1
    assert rank_biased_overlap([], []) == overlap([], [], 10) == 1
    assert rank_biased_overlap(["a"], []) == 0
    assert overlap(["a", "b", "c"], ["a"], 10) == pytest.approx(1 / 3)
