"""Hard negatives of `vecbeam train`: mined from the file as the library does it, and from the rows of a collection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from synonyms import LEFT, NUMBERS, RIGHT, answer, words, write_synonyms
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.steps.quality.mined_rows import mined_rows
from pipelines.steps.quality.trained_model import RECORD
from pipelines.train import train
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError
from transforms.encoders.engines.torch.modules import load_modules
from transforms.encoders.text_facts import TextFacts
from transforms.support.vectors import unit_vectors
from transforms.train import text_training
from transforms.train.hard_negatives import MARGIN, MinedTable, NegativeSource, with_negatives
from transforms.train.text_training import TrainingSettings
from transforms.train.training_pairs import Pair, read_pairs, same, split

pytest.importorskip("datasets")
pytest.importorskip("accelerate")


def near(n: int) -> str:
    """A text that shares two words with a query, and answers none."""
    return " ".join([*(LEFT[one] for one in words(n)[:2]), "other"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("negatives")
    write_synonyms(folder)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    """A collection with the answers, and near texts that no pair has."""
    write_jsonl(folder / "corpus" / "b.jsonl", [{"id": f"n{n}", "text": near(n)} for n in NUMBERS])
    base = {"model": str(folder / "base" / "whole"), "precision": "float32"}
    made = configure(folder, encoder=base, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}})
    backfill(made)
    return made


def test_those_of_a_file_are_those_of_the_library(folder: Path) -> None:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    model = load_modules(str(folder / "base" / "whole"), "cpu")
    pairs = read_pairs(str(folder / "pairs.jsonl")).pairs
    texts = [pair.positive for pair in pairs] + [near(n) for n in NUMBERS]
    wanted = mine_hard_negatives(
        Dataset.from_list([{"query": pair.query, "positive": pair.positive} for pair in pairs]),
        model,
        corpus=texts,
        relative_margin=MARGIN,
        num_negatives=2,
        range_max=len(texts) - 1,
        verbose=False,
    )
    source = text_training.negatives_of(model, TextFacts("", ""), texts)
    found, count = with_negatives(pairs, 2, source, {}, [])

    def scores(triples: Sequence[tuple[str, ...]]) -> dict[str, list[float]]:
        """Of the negatives of each query: texts of the same words are equally near."""
        scored: dict[str, list[float]] = {}
        for query, _, negative in triples:
            [a, b] = model.encode([query, negative], normalize_embeddings=True)
            scored.setdefault(query, []).append(round(float(a @ b), 4))
        return {query: sorted(own) for query, own in scored.items()}

    theirs = scores([(one["query"], one["positive"], one["negative"]) for one in wanted])
    ours = scores([one for one in found if one.negative])
    # The library leaves out pairs that have fewer than two.
    assert theirs == {query: own for query, own in ours.items() if len(own) == 2}
    assert count >= len(wanted) > 50


def test_those_of_a_collection_are_its_rows_and_answer_nothing(folder: Path, config: Config) -> None:
    file = read_pairs(str(folder / "pairs.jsonl"))
    parts = split(file.pairs, 0.2)
    hidden = {text for pair in parts.held_out for text in pair[:2]}
    found, count = with_negatives(parts.trained, 2, mined_rows(config), file.answers, hidden)
    negatives = {one.negative for one in found if one.negative}
    assert count == sum(bool(one.negative) for one in found) > len(parts.trained)
    assert negatives <= {*map(answer, NUMBERS), *map(near, NUMBERS)}
    assert negatives & {*map(near, NUMBERS)}
    assert not negatives & hidden
    assert not any(one.negative == one.positive for one in found)
    assert {(one.query, one.positive) for one in found} == {(one.query, one.positive) for one in parts.trained}


def test_the_command_mines_the_collection_and_the_card_says_so(folder: Path, config: Config, tmp_path: Path) -> None:
    options = ["--hard-negatives", "2", "--batch", "16", "--even-if-not-better", "--json"]
    for name, given in {"collection": [], "file": ["--negatives-from", "pairs"]}.items():
        command = ["train", str(folder / "pairs.jsonl"), str(folder / "vecbeam.yaml"), "--out", str(tmp_path / name)]
        done = CliRunner().invoke(app, [*command, *options, *given])
        assert done.exit_code == 0, done.output
        figures: dict[str, Any] = json.loads(done.stdout)
        record = json.loads((tmp_path / name / RECORD).read_bytes())
        assert record["negatives"]["count"] == figures["mined"] > 0
        source = record["negatives"]["from"]
        assert source == "pairs" if given else source.startswith("tested, snapshot ")
        assert f"| hard negatives | {figures['mined']:,} of {source} |" in (tmp_path / name / "README.md").read_text()


def tables_of(rows: Sequence[tuple[str, str]], vectors: Any, size: int) -> Any:
    def tables() -> Iterator[MinedTable]:
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            yield MinedTable([item for item, _ in some], [text for _, text in some], vectors[start : start + size])

    return tables


@pytest.mark.parametrize("seed", range(3))
def test_they_are_those_of_a_plain_search(seed: int) -> None:
    random = np.random.default_rng(seed)

    def draw(count: int) -> Any:
        return unit_vectors(random.standard_normal((count, 4)).astype(np.float32))

    rows = [(f"item {n // 2}", f"text {n}") for n in range(300)]
    vectors, queries = draw(300), draw(40)
    pairs = [Pair(f"query {n}", f"text {7 * n}") for n in range(40)]
    own = vectors[[7 * n for n in range(40)]]
    hidden = ["Text  3", "text 8"]
    source = NegativeSource("rows", lambda _: queries, lambda _: own, tables_of(rows, vectors, 64))
    found, count = with_negatives(pairs, 3, source, {}, hidden)
    wanted = []
    for n, pair in enumerate(pairs):
        scores, limit = vectors @ queries[n], float(queries[n] @ own[n])
        limit -= MARGIN * abs(limit)
        items = {rows[7 * n][0], rows[3][0], rows[8][0]}
        order = [at for at in np.argsort(-scores, kind="stable") if scores[at] < limit and rows[at][0] not in items]
        wanted += [pair._replace(negative=rows[at][1]) for at in order[:3]] or [pair]
    assert found == wanted
    assert count == sum(bool(one.negative) for one in wanted)


def test_no_chunk_of_what_answers_or_is_held_out_is_a_negative() -> None:
    document = "The harbour master keeps a list of all ships that came in during the last storm of the year."
    other = "A gardener plants roses in spring, and cuts them back before the first frost of a long winter."
    rows = [
        ("a", "and a chunk of the same document that shares no words with it"),
        ("b", " ".join(other.split()[4:])),
        ("c", "an unrelated text about kites"),
        ("a", " ".join(document.split()[:9])),
    ]
    vectors = np.tile(np.float32([[0.6, 0.8]]), (4, 1))

    def unit(texts: Sequence[str]) -> Any:
        return np.tile(np.float32([[1, 0]]), (len(texts), 1))

    source = NegativeSource("rows", unit, unit, tables_of(rows, vectors, 1))
    pair = Pair("who knows the ships", document)
    found, _ = with_negatives([pair], 4, source, {same(pair.query): {document}}, [other])
    assert [one.negative for one in found] == ["an unrelated text about kites"]


def test_other_texts_of_a_label_are_no_negatives(folder: Path, tmp_path: Path) -> None:
    lines = [{"anchor": f"{LEFT[n % 12]} {RIGHT[n // 12]}", "label": n % 12} for n in range(72)]
    file = read_pairs(str(write_jsonl(tmp_path / "labels.jsonl", lines)))
    model = load_modules(str(folder / "base" / "whole"), "cpu")
    texts = [line["anchor"] for line in lines]
    source = text_training.negatives_of(model, TextFacts("", ""), [str(text) for text in texts])
    found, count = with_negatives(file.pairs, 2, source, file.answers, [])
    assert count > 0
    assert all(file.labels[one.query] != file.labels[one.negative] for one in found if one.negative)


def test_wrong_sources_are_refused(folder: Path, config: Config, tmp_path: Path) -> None:
    pairs, base = folder / "pairs.jsonl", str(folder / "base" / "whole")
    with pytest.raises(ConfigurationError, match="--negatives-from: no negatives are mined"):
        train(pairs, tmp_path / "m", config, negatives_from="pairs")
    settings = TrainingSettings(hard_negatives=1)
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        train(pairs, tmp_path / "m", model=base, settings=settings, negatives_from=tmp_path / "nothing.yaml")
    empty = configure(tmp_path, encoder={"model": base}, corpus={"paths": [str(folder / "corpus" / "*")]})
    with pytest.raises(CheckpointError, match="holds no snapshot"):
        train(pairs, tmp_path / "m", empty, settings=settings)
    assert not (tmp_path / "m").exists()
