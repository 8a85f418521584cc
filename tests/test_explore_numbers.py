"""Outliers among rows of numbers: planted transactions are found, by columns and without vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.sync import sync
from transforms import milvus
from transforms.explore.number_rows import CONSTANT, NumberScale

pytest.importorskip("faiss", reason="the extra explore is not installed")
NUMBERS = ("--number", "amount", "--number", "hour", "--number", "abroad")
FRAUD = {"much": 900, "early": 20, "both": 30, "abroad": 70}
"""Amounts of the planted transactions, by id."""


def transactions(first: int, count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(first)
    found = []
    for number in range(first, first + count):
        hour = int(np.clip(random.normal(14, 2.5), 7, 21))
        amount = round(float(5 * hour + random.normal(0, 6)), 2)
        found.append({"id": f"t{number}", "text": "card payment", "amount": amount, "hour": hour, "abroad": False})
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Usual transactions in a first snapshot; in a second one also unusual ones, and one without an amount."""
    folder = tmp_path_factory.mktemp("numbers")
    types = {"amount": "float", "hour": "int", "abroad": "bool", "text_": {"from": "text", "type": "string"}}
    config = configure(folder, corpus={"paths": ["corpus/*"], "metadata": types}, chunk=False)
    write_jsonl(folder / "corpus" / "a.jsonl", transactions(0, 400))
    backfill(config)
    unusual = [
        {"id": "much", "amount": 900.0, "hour": 15, "abroad": False},
        {"id": "early", "amount": 20.0, "hour": 2, "abroad": False},
        {"id": "both", "amount": 30.0, "hour": 20, "abroad": False},  # each is usual, and not together
        {"id": "abroad", "amount": 70.0, "hour": 14, "abroad": True},
        {"id": "no-amount", "hour": 14, "abroad": False},
    ]
    later = [*transactions(400, 20), *({"text": "card payment", **one} for one in unusual)]
    write_jsonl(folder / "corpus" / "b.jsonl", later)
    sync(config)
    yield folder
    milvus.release(config.collection)


def explored(folder: Path, *words: str) -> Any:
    result = CliRunner().invoke(app, ["explore", "outliers", str(folder / "vecbeam.yaml"), *words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_transactions_that_are_unusual_are_found_by_their_numbers(folder: Path) -> None:
    found = explored(folder, *NUMBERS)
    assert {row["item_id"]: row["amount"] for row in found["rows"]} == FRAUD
    assert found["numbers"] == ["amount", "hour", "abroad"]
    assert found["notes"] == ["1 rows have no number in one of the columns, and are left out"]
    with Index(folder / "vecbeam.yaml") as index:
        assert index.explore.outliers(numbers="amount").table.column("item_id")[0].as_py() == "much"


def test_new_rows_are_judged_on_the_scale_of_the_earlier_ones(folder: Path) -> None:
    found = explored(folder, *NUMBERS, "--new")
    assert (found["judged"], found["earlier_rows"]) == (24, 400)
    assert {row["item_id"] for row in found["rows"]} == {*FRAUD}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--number", "text_"], "--number: the column 'text_' has no numbers, it is of type string"),
        (["--number", "size"], "--number: rows have no column 'size'"),
        (["--number", "hour", "--vector", "vector"], "--number and --vector are both given"),
    ],
)
def test_wrong_columns_are_refused(folder: Path, words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["explore", "outliers", str(folder / "vecbeam.yaml"), *words])
    assert result.exit_code == 2
    assert said in result.output


def test_columns_are_scaled_by_their_quartiles_and_constant_ones_do_not_count() -> None:
    numbers = np.stack([np.arange(101.0), np.full(101, 7.0), np.r_[np.zeros(100), 1]], axis=1)
    scale = NumberScale.of(numbers)
    assert scale.spreads == pytest.approx([50 / 1.349, 7e-6, numbers[:, 2].std()])
    vectors = scale.vectors(numbers)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(101), abs=1e-6)
    assert vectors[50] == pytest.approx([0, 0, 0, 1], abs=1e-6)
    # Near the middle, the angle is the distance over the constant.
    apart = np.linalg.norm(vectors[51] - vectors[50])
    assert apart == pytest.approx(1.349 / 50 / (CONSTANT * np.sqrt(3)), rel=0.01)
