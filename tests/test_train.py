"""`vecbeam train`: a model that learns planted synonyms and is then served, refusals, and item vectors of baskets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from models import save_model
from safetensors.numpy import load_file
from synonyms import LEFT, NUMBERS, RIGHT, asked, write_synonyms
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.reindex import reindex
from pipelines.search import search
from pipelines.steps.quality.trained_model import RECORD
from pipelines.steps.search.queries.query import PreferenceQuery
from pipelines.train import train, train_items
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError
from transforms.train.training_pairs import MOST_HELD_OUT, read_pairs, same, split

pytest.importorskip("datasets")
pytest.importorskip("accelerate")

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "train.md"


def learn(**changes: Any) -> list[str]:
    options = {"--epochs": "20", "--batch": "16", "--learning-rate": "0.05"} | changes
    return [word for pair in options.items() for word in pair]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that knows no synonym, pairs of synonyms, and a corpus of the answers."""
    folder = tmp_path_factory.mktemp("trained")
    write_synonyms(folder)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Any]:
    """What the command printed; the model is in `mine`."""
    words = ["train", str(folder / "pairs.jsonl"), "--model", str(folder / "base" / "whole"), "--json"]
    done = CliRunner().invoke(app, [*words, "--out", str(folder / "models" / "mine"), *learn()])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.stderr.split("\n")[:3] == ["measure", f"train  0 of {found['steps']:,}", "measure again"]
    return found


def test_a_trained_model_is_better_on_queries_that_it_never_saw(folder: Path, trained: dict[str, Any]) -> None:
    assert trained["ndcg_at_10_after"]["value"] > trained["ndcg_at_10_before"]["value"] + 0.1
    assert trained["difference"]["low"] > 0
    assert len(trained["rows"]) == trained["held_out_queries"] == round(0.2 * len(NUMBERS))
    record = json.loads((folder / "models" / "mine" / RECORD).read_bytes())
    assert record["figures"]["ndcg_at_10_after"] == trained["ndcg_at_10_after"]
    assert record["pairs"]["count"] == len(NUMBERS)
    assert {"torch", "sentence-transformers", "datasets"} <= record["versions"].keys()
    card = (folder / "models" / "mine" / "README.md").read_text()
    assert record["pairs"]["sha256"][:12] in card
    assert f"{trained['ndcg_at_10_after']['value']:.4f}" in card
    assert [path.name for path in (folder / "models").iterdir()] == ["mine"]


def test_a_trained_model_is_served_after_a_reindex(folder: Path, trained: dict[str, Any]) -> None:
    base = {"model": str(folder / "base" / "whole"), "precision": "float32"}
    index = {"uri": "./milvus.db", "index": {"type": "FLAT"}}
    config = configure(folder, encoder=base, collection=index)
    unseen = [row["query"] for row in trained["rows"]]
    right = {asked(n): f"d{n}" for n in NUMBERS}

    def found(config: Any) -> int:
        hits = [search(config, query, k=5) for query in unseen]
        return sum(right[query] in [hit["item_id"] for hit in each] for query, each in zip(unseen, hits, strict=True))

    backfill(config)
    before = found(config)
    mine = configure(folder, encoder=base | {"model": str(folder / "models" / "mine")}, collection=index)
    reindex(mine)
    assert found(mine) > before


def test_the_same_training_gives_the_same_weights(folder: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    words = ["train", str(folder / "pairs.jsonl"), "--model", str(folder / "base" / "whole")]
    assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / "again"), *learn()]).exit_code == 0
    first, second = (
        load_file(next(place.rglob("model.safetensors"))) for place in (folder / "models" / "mine", tmp_path / "again")
    )
    for name, weights in first.items():
        np.testing.assert_array_equal(weights, second[name])


def test_a_model_that_is_not_better_is_not_written(folder: Path, tmp_path: Path) -> None:
    base = save_model(folder / "transformer", vocabulary=[*LEFT, *RIGHT], others=["Normalize"])
    words = ["train", str(folder / "pairs.jsonl"), "--model", str(base)]
    words += ["--out", str(tmp_path / "worse"), *learn(**{"--epochs": "1", "--learning-rate": "1e-9"})]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 3
    assert "nDCG@10" in refused.output
    assert "nothing was written" in refused.output
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(app, [*words, "--even-if-not-better"]).exit_code == 0
    assert (tmp_path / "worse" / RECORD).exists()


def test_hard_negatives_are_mined(folder: Path, tmp_path: Path) -> None:
    words = ["train", str(folder / "pairs.jsonl"), "--model", str(folder / "base" / "whole"), "--even-if-not-better"]
    words += ["--out", str(tmp_path / "m"), "--hard-negatives", "2", *learn(**{"--epochs": "1"}), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["mined"] > 0


def test_no_text_of_the_held_out_part_is_trained_on(tmp_path: Path) -> None:
    shared = [{"query": f"q{n}", "positive": f"p{n % 40}", "negative": f"p{(n + 1) % 40}"} for n in range(60)]
    twice = [{"query": f"Q{n} ", "positive": f"other {n}"} for n in range(60)]
    file = read_pairs(str(write_jsonl(tmp_path / "pairs.jsonl", shared + twice)))
    parts = split(file.pairs, 0.2, seed=3)
    hidden = {same(text) for pair in parts.held_out for text in pair[:2]}
    assert hidden.isdisjoint({text for pair in parts.trained for text in pair.texts})
    assert parts.left_out > 0
    assert len(parts.held_out) + len(parts.trained) + parts.left_out == len(file.pairs)
    assert parts == split(file.pairs, 0.2, seed=3)


def test_labels_are_held_out_as_a_whole(tmp_path: Path) -> None:
    lines = [{"anchor": f"text {n}", "label": n % 10} for n in range(60)]
    file = read_pairs(str(write_jsonl(tmp_path / "labels.jsonl", lines)))
    assert all(file.labels[pair.query] == file.labels[pair.positive] for pair in file.pairs)
    parts = split(file.pairs, 0.2, labels=file.labels)
    held_out, taught = ({file.labels[pair.query] for pair in part} for part in (parts.held_out, parts.trained))
    assert len(held_out) == 2
    assert held_out.isdisjoint(taught)
    assert len(parts.held_out) == 2 * 6 * 5


def test_of_labels_with_many_texts_some_are_ranked(tmp_path: Path) -> None:
    lines = [{"anchor": f"text {n}", "label": n % 3} for n in range(6_000)]
    file = read_pairs(str(write_jsonl(tmp_path / "labels.jsonl", lines)))
    parts = split(file.pairs, 0.2, labels=file.labels)
    assert 450_000 < len(parts.held_out) <= MOST_HELD_OUT  # not 2,000 times 1,999
    ranked = {pair.query for pair in parts.held_out}
    assert len(ranked) + len(parts.unranked) == 2_000
    assert ranked.isdisjoint(parts.unranked)
    assert {*ranked, *parts.unranked}.isdisjoint({text for pair in parts.trained for text in pair[:2]})
    assert parts == split(file.pairs, 0.2, labels=file.labels)


def test_a_step_has_no_label_twice(folder: Path, tmp_path: Path) -> None:
    lines = [{"anchor": f"{LEFT[n % 12]} {RIGHT[n // 12]}", "label": f"about {n % 12}"} for n in range(72)]
    pairs = str(write_jsonl(tmp_path / "labels.jsonl", lines))
    words = ["train", pairs, "--model", str(folder / "base" / "whole"), "--even-if-not-better", "--json"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "m"), *learn(**{"--epochs": "1"})])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert (figures["held_out_queries"], figures["trained_pairs"]) == (12, 60)
    assert figures["steps"] == 6  # of ten labels each, although a batch may have more pairs


PAIR = {"query": "a", "positive": "b"}
REFUSED = {
    "one pair": ([PAIR], "1 different pairs"),
    "all copies": ([PAIR] * 30, "1 different pairs"),
    "one query": ([{"query": "A", "positive": f"b{n}"} for n in range(9)], "all queries"),
    "one positive": ([{"query": f"a{n}", "positive": "b"} for n in range(9)], "all positives"),
    "a leak": ([{"query": f"a{n}", "positive": f"b{n % 2}"} for n in range(99)], "would leak"),
    "few queries": ([{"query": f"a{n}", "positive": f"b{n}"} for n in range(20)], "fewer than 10"),
    "no positive": ([PAIR, {"query": "c"}], "line 2 has no positive"),
    "blank": ([PAIR, {"query": " ", "positive": "x"}], "line 2 has a blank query"),
    "a number": ([{"query": 5, "positive": "x"}], "has no text in query"),
    "same negative": ([PAIR | {"negative": " B"}], "negative and positive"),
    "a list": ([[1]], "not a JSON object"),
    "mixed": ([PAIR, {"anchor": "x", "label": "y"}], "mixes pairs and labels"),
    "one label": ([{"anchor": f"x{n}", "label": "y"} for n in range(9)], "have the label 'y'"),
    "two labels": ([{"anchor": "x", "label": "y"}, {"anchor": "x", "label": "z"}], "line 2: the anchor"),
    "labels of which one remains": ([{"anchor": f"x{n}", "label": n % 2} for n in range(40)], "1 of 2 labels remain"),
    "no label": ([{"anchor": "x"}], "has no label"),
    "a label each": ([{"anchor": f"x{n}", "label": n} for n in range(40)], "each text of .* has a label of its own"),
    "the query as its answer": ([{"query": f"a{n}", "positive": f"A{n} "} for n in range(40)], "0 different pairs"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_wrong_file_of_pairs_is_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    records, message = REFUSED[kind]
    place = write_jsonl(tmp_path / "pairs.jsonl", records)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=message):
        train(place, tmp_path / "out", model=str(folder / "base" / "whole"))
    assert not (tmp_path / "out").exists()


def test_wrong_options_are_refused(folder: Path, tmp_path: Path) -> None:
    pairs, base = str(folder / "pairs.jsonl"), str(folder / "base" / "whole")
    for words, message in {
        (pairs, "--model", base, "--out", str(folder)): "exists",
        (pairs, "--model", base): "--out: not given",
        ("--out", "x"): "nothing to train on",
        (pairs, "--histories", pairs, "--out", "x"): "both given",
        (pairs, "--model", base, "--out", str(tmp_path / "m"), "--held-out", "1"): "--held-out: 1.0",
        (pairs, "--model", base, "--out", str(tmp_path / "m"), "--epochs", "0"): "--epochs: 0",
        (pairs, "--model", "fake", "--out", str(tmp_path / "m")): "not a model of sentence-transformers",
        (str(tmp_path / "no.jsonl"), "--model", base, "--out", str(tmp_path / "m")): "there is no file",
        ("--histories", pairs, "--out", str(tmp_path / "m")): "does not end with .vec",
        ("--histories", pairs, "--out", "m.vec", "--model", base): "--model: --histories trains item vectors",
        (pairs, "--model", base, "--out", str(tmp_path / "m"), "--least", "2"): "--least: it is for --histories",
        (pairs, "--model", base, "--out", str(tmp_path / "m"), "--dimensions", "8"): "--dimensions: the model has",
        (pairs, "--model", "static", "--out", str(tmp_path / "m"), "--revision", "a"): "--revision: it is for",
    }.items():
        done = CliRunner().invoke(app, ["train", *words])
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.output.split())


def baskets(path: Path) -> Path:
    """Five groups of eight items; a basket has four items of one group, and sometimes one of another."""
    random = np.random.default_rng(0)
    lines = []
    for _ in range(600):
        group = int(random.integers(5))
        items = [f"sku-{group}-{n}" for n in random.choice(8, 4, replace=False)]
        if random.random() < 0.2:
            items.append(f"sku-{random.integers(5)}-{random.integers(8)}")
        lines.append({"items": items})
    return write_jsonl(path, lines)


def test_baskets_recommend_what_is_bought_together(tmp_path: Path) -> None:
    found = train_items(baskets(tmp_path / "baskets.jsonl"), tmp_path / "items.vec", dimensions=16)
    assert found.figures["items"] == 40
    names = [f"sku-{group}-{n}" for group in range(5) for n in range(8)]
    write_jsonl(tmp_path / "items.jsonl", [{"id": name, "text": name} for name in names])
    (tmp_path / "vecbeam.yaml").write_text(re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0])
    config = load_config(tmp_path / "vecbeam.yaml")
    backfill(config)
    right = 0
    for name in names:
        hits = [hit["item_id"] for hit in search(config, name, k=6)]
        right += sum(hit[:5] == name[:5] for hit in hits if hit != name)
    assert right >= 0.9 * 5 * len(names)
    liked = PreferenceQuery(like=("sku-3-0", "sku-3-1"))
    assert all(hit["item_id"].startswith("sku-3-") for hit in search(config, liked, k=3))
    again = tmp_path / "again.vec"
    train_items(tmp_path / "baskets.jsonl", again, dimensions=16)
    assert again.read_bytes() == (tmp_path / "items.vec").read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ('{"item": []}', "no list of items"),
        ('["a b", "c"]', "white space"),
        ('[null, "c"]', "None is not an id"),
        ('["a"]', "no history"),
        ('["a", "b"]', "lower --least"),
        ('\ufeff["a", "b"]', "lower --least"),
    ],
)
def test_wrong_histories_are_refused(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text(line + "\n")
    with pytest.raises(ConfigurationError, match=message):
        train_items(tmp_path / "h.jsonl", tmp_path / "items.vec")
    assert not (tmp_path / "items.vec").exists()
