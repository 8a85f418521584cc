"""Drift: a drifted month is found, an undrifted one is not; another model's neighbours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from corpora import write_jsonl
from planted import ROWS, STRANGE, TOPICS, planted, record
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.explore.drift import drift
from pipelines.index import Index
from pipelines.reindex import reindex
from pipelines.steps.collection.current_rows import current_rows
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import CheckpointError, ConfigurationError, SpaceMismatchError
from transforms import milvus
from transforms.explore.items_of import items_of
from transforms.explore.live_rows import LiveRows
from transforms.explore.neighbour_overlap import neighbour_overlap
from transforms.explore.rows_since import rows_since
from transforms.explore.two_samples import discrepancy, mean_distance, separation

USUAL, OTHER = 45, 40
JANUARY, FEBRUARY = (datetime(2026, month, 1, tzinfo=UTC).timestamp() for month in (1, 2))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """Three snapshots: of January; of February, with 45 more rows of the same topics; and with 40 of one topic."""
    folder = tmp_path_factory.mktemp("drifted")
    config = planted(folder)
    backfill(config)
    topics = list(TOPICS)
    write_jsonl(folder / "corpus" / "b.jsonl", [record(topics[n % 3], 200 + n) for n in range(USUAL)])
    sync(config)
    write_jsonl(folder / "corpus" / "c.jsonl", [record("sky", 300 + n) for n in range(OTHER)])
    sync(config)
    names = sorted((folder / "checkpoint" / "tested" / "snapshots").iterdir())
    for path, written in zip(names, (JANUARY, FEBRUARY), strict=False):
        os.utime(path, (written, written))
    yield config
    milvus.release(config.collection)


def path_of(config: Config) -> Path:
    return Path(config.collection.uri).parent / "vecbeam.yaml"


def normal(rows: int, seed: int, shift: float = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, 12)).astype(np.float32)
    vectors[:, 0] += shift
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_permutation_test_keeps_its_level_and_finds_a_shift() -> None:
    alarms = [discrepancy(normal(40, seed), normal(60, 1000 + seed)).p_value for seed in range(40)]
    assert sum(p <= 0.01 for p in alarms) <= 2
    assert 0.3 < np.mean(alarms) < 0.7
    found = [discrepancy(normal(40, seed), normal(60, 1000 + seed, 1.5)).p_value for seed in range(8)]
    assert sum(p <= 0.01 for p in found) >= 7


def test_equal_samples_have_no_discrepancy() -> None:
    same = np.ones((30, 4), np.float32) / 2
    assert discrepancy(same, same) == (0.0, 1.0)
    assert discrepancy(normal(50, 1), normal(50, 1)).squared < 0.01
    assert mean_distance(normal(50, 1), normal(50, 1)) == 0


def test_the_interval_of_the_classifier_holds_one_half_where_nothing_differs() -> None:
    inside = [separation(normal(60, seed), normal(60, 500 + seed)) for seed in range(8)]
    assert sum(one.low <= 0.5 for one in inside) >= 7
    assert separation(normal(60, 1), normal(60, 2, 4)).low > 0.9
    many = separation(normal(3_000, 1), normal(2_500, 2))
    assert len(many.scores) == 2_000
    assert (np.diff(many.positions) > 0).all()


def test_the_same_topics_are_no_drift(config: Config) -> None:
    # Of January's rows and those that came in February, by the snapshot of February.
    rows = current_rows(config)
    names = rows.checkpoint.snapshots()
    first, second = (LiveRows(rows.checkpoint, rows.checkpoint.read_snapshot(name)) for name in names[:2])
    new = items_of(second.sample("vector", among=rows_since(second, first)))
    assert len(new) == USUAL
    before = items_of(first.sample("vector"))
    assert discrepancy(before.normalised, new.normalised).p_value > 0.01


def test_a_month_of_one_topic_is_a_drift(config: Config) -> None:
    found = drift(config, since="2026-02-15")
    figures = found.figures
    assert figures["new_rows"] == OTHER
    assert figures["earlier_items"] == 3 * ROWS + STRANGE + USUAL
    assert figures["drifted"] is True
    assert figures["p_value"] == 0.001
    assert figures["auc_interval"][0] > 0.6
    assert {row["item_id"][:3] for row in found.table.to_pylist()} == {"sky"}
    assert found.basis["earlier_snapshot"] == drift(config, since="2").basis["earlier_snapshot"]


def test_a_date_means_the_newest_snapshot_written_by_then(config: Config) -> None:
    by_date = [drift(config, since=date).figures["new_rows"] for date in ("2026-01-15", "2026-02-01T12:00:00+01:00")]
    assert by_date == [USUAL + OTHER, OTHER]
    name = current_rows(config).checkpoint.snapshots()[0]
    identity = name.removesuffix(".parquet").split("-")[2]
    assert {drift(config, since=one).figures["new_rows"] for one in ("1", name, identity)} == {USUAL + OTHER}


def test_few_new_rows_are_too_few_to_tell(tmp_path: Path) -> None:
    config = planted(tmp_path)
    backfill(config)
    for well_formed in ("1", "2026-11-01"):
        with pytest.raises(CheckpointError, match=r"has no snapshot of the space \w+ before"):
            drift(config, since=well_formed)
    with pytest.raises(ConfigurationError, match="'yesterday' is neither a date nor an earlier snapshot; there is no"):
        drift(config, since="yesterday")
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [record("sky", 400)])
    sync(config)
    found = drift(config, since="1")
    assert found.figures["drifted"] is None
    assert "too few to tell" in found.notes[0]
    (tmp_path / "corpus" / "b.jsonl").unlink()
    sync(config)
    assert drift(config, since="2").figures == {"new_rows": 0, "drifted": False}
    milvus.release(config.collection)


def test_neighbours_in_two_spaces() -> None:
    vectors = normal(200, 3)
    turned = vectors @ np.linalg.qr(np.random.default_rng(4).standard_normal((12, 12)))[0].astype(np.float32)
    assert neighbour_overlap(vectors, turned, 5)[0].mean() > 0.99
    assert neighbour_overlap(vectors, normal(200, 5), 5)[0].mean() < 0.08


def test_another_configuration_over_the_same_items(config: Config, tmp_path: Path) -> None:
    changes = [f"checkpoint={tmp_path}/checkpoint", f"collection.uri={tmp_path}/milvus.db", "encoder.dimensions=24"]
    other = load_config(path_of(config), changes)
    backfill(other)
    found = drift(config, against=other, k=5)
    assert found.figures["items"] == 3 * ROWS + STRANGE + USUAL + OTHER
    assert found.figures["by_chance"] < 0.05 < found.figures["overlap"] < 1
    assert found.figures["same_space"] is False
    row = found.table.to_pylist()[0]
    common = set(row["neighbours"]) & set(row["other_neighbours"])
    assert row["overlap"] == pytest.approx(len(common) / 5)
    same = drift(config, against=config, k=5)
    assert (same.figures["overlap"], same.figures["same_space"]) == (1.0, True)
    with pytest.raises(ConfigurationError, match="items in common, and 500 neighbours need 502 or more"):
        drift(config, against=other, k=500)
    with Index(path_of(config)) as index:
        assert index.explore.drift(against=path_of(config), k=5).figures["overlap"] == 1
    milvus.release(other.collection)


def test_two_models_of_one_checkpoint_are_compared_by_the_newest_rows_of_each(tmp_path: Path) -> None:
    config = planted(tmp_path)
    backfill(config)
    other = load_config(path_of(config), ["encoder.dimensions=24"])
    with pytest.raises(SpaceMismatchError, match="is of space"):  # nothing has been embedded by it
        drift(config, against=other, k=5)
    reindex(other)
    found = drift(config, against=other, k=5)
    assert found.figures["overlap"] < 1
    assert found.figures["same_space"] is False
    assert drift(other, against=config, k=5).figures["overlap"] == found.figures["overlap"]
    with pytest.raises(ConfigurationError, match="which would be compared with itself"):
        drift(config, against=other, k=5, served=True)
    milvus.release(config.collection)


def test_the_command_prints_json_and_a_page(config: Config, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ["explore", "drift", str(path_of(config)), "--since", "2", "--html", str(page)]
    assert f"{OTHER} of {3 * ROWS + STRANGE + USUAL + OTHER} rows, snapshot" in CliRunner().invoke(app, words).output
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["drifted"] is True
    assert "New items by how unlike" in page.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "drift is measured with --since or with --against"),
        (["--since", "1", "--against", "CONFIG"], "not with both"),
        (["--since", "1", "--level", "0"], "--level: 0.0 is not between 0 and 1"),
        (["--since", "1", "-k", "5"], "-k: it is for --against"),
        (["--against", "CONFIG", "--level", "0.1"], "--level: it is for --since"),
        (["--since", "yesterday"], "--since: 'yesterday' is neither a date nor an earlier snapshot; the earlier snap"),
        (["--since", "9"], "'9' is neither a date nor an earlier snapshot"),
        (["--since", "2020-01-01"], "was written by 2020-01-01 00:00:00 UTC; the earlier snapshots are 000001-"),
    ],
)
def test_wrong_options_are_refused(config: Config, words: list[str], said: str) -> None:
    given = [str(path_of(config)) if word == "CONFIG" else word for word in words]
    result = CliRunner().invoke(app, ["explore", "drift", str(path_of(config)), *given])
    assert result.exit_code == 2
    assert said in result.output
