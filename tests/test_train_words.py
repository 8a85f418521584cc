"""`vecbeam train --model static`: vectors of words of one's own, from nothing but pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from synonyms import NUMBERS, RIGHT, answer, asked, words
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.search import search
from pipelines.steps.quality.trained_model import RECORD
from pipelines.train import train
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, GateError
from transforms.encoders import resolve, text_inputs
from transforms.train import text_training
from transforms.train.own_words import save_random_words, write_words
from transforms.train.text_training import TrainingSettings

pytest.importorskip("datasets")
pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    write_jsonl(folder / "pairs.jsonl", [{"query": asked(n), "positive": answer(n)} for n in NUMBERS])
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Any]:
    command = ["train", str(folder / "pairs.jsonl"), "--model", "static", "--dimensions", "16", "--batch", "16"]
    done = CliRunner().invoke(app, [*command, "--out", str(folder / "mine"), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_words_of_one_s_own_learn_what_random_vectors_do_not_know(folder: Path, trained: dict[str, Any]) -> None:
    assert trained["base"] == "static"
    assert trained["difference"]["low"] > 0
    assert trained["ndcg_at_10_after"]["value"] > trained["ndcg_at_10_before"]["value"] + 0.2
    record = json.loads((folder / "mine" / RECORD).read_bytes())
    assert (record["base"]["model"], record["settings"]["epochs"], record["settings"]["learning_rate"]) == (
        "static",
        20,
        0.05,
    )
    assert trained["notes"][-1] == f"encoder.model is {folder / 'mine' / 'words.vec'}"
    assert (folder / "mine" / "README.md").read_text().startswith("# mine")


def test_the_file_is_a_word_encoder_that_is_published(folder: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": answer(n)} for n in NUMBERS])
    encoder = {"model": str(folder / "mine" / "words.vec"), "precision": "float32"}
    config = configure(tmp_path, encoder=encoder, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}})
    assert backfill(config).items.new == len(NUMBERS)
    right = {asked(n): f"d{n}" for n in NUMBERS}
    unseen = [row["query"] for row in trained["rows"] if row["after"] == 1]
    assert len(unseen) > len(trained["rows"]) / 2
    assert sum(search(config, query, k=1)[0]["item_id"] == right[query] for query in unseen) >= 0.9 * len(unseen)
    # A word that no pair of the training has is a dropped token.
    encoded = resolve(EncoderConfig(**encoder)).load().encode(text_inputs([f"{RIGHT[0]} unheardof"]))
    assert encoded.dropped.tolist() == [1]


def test_the_vectors_are_those_of_the_library(tmp_path: Path) -> None:
    texts = ["Red foxes, red dogs.", "a cat's_toy \u00c9T\u00c9 2 x3", "e\u0301te"]
    assert save_random_words(tmp_path / "model", texts, 8, seed=3) == 11
    model = resolve(EncoderConfig(model=str(tmp_path / "model"))).load()
    library = text_training.load(tmp_path / "model", resolve(EncoderConfig(model=str(tmp_path / "model"))).facts)
    write_words(library, tmp_path)
    asked_for = [*texts, "RED", "dogs-cat", "unknown red"]
    expected = library.encode(asked_for, normalize_embeddings=True)
    for own in (model, resolve(EncoderConfig(model=str(tmp_path / "words.vec"))).load()):
        vectors = own.encode(text_inputs(asked_for)).matrix
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(vectors / lengths, expected, atol=1e-5)


def test_words_that_learn_nothing_are_not_written(folder: Path, tmp_path: Path) -> None:
    # Answers that share their words with the queries are found by random vectors already.
    same = [{"query": f"{asked(n)} {words(n)[0]}", "positive": f"{asked(n)} {n}"} for n in NUMBERS]
    place = write_jsonl(tmp_path / "pairs.jsonl", same)
    with pytest.raises(GateError, match=r"not better on .* nothing was written"):
        train(place, tmp_path / "m", model="static", settings=TrainingSettings(1, 16, 1e-9))
    assert not (tmp_path / "m").exists()
    with pytest.raises(ConfigurationError, match="--dimensions: 0 is not a number"):
        train(place, tmp_path / "m", model="static", dimensions=0)
    with pytest.raises(ConfigurationError, match="no text has a word"):
        train(
            write_jsonl(tmp_path / "p.jsonl", [{"query": "!" * n, "positive": "?" * n} for n in range(1, 80)]),
            tmp_path / "m",
            model="static",
        )
