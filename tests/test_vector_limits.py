"""`verify.max_duplicates`, `max_outliers`, `max_drift`: what is refused, what stays, what plan and report say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpora import write_jsonl
from planted import ROWS, STRANGE, TOPICS, planted, record, records
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.load import load
from pipelines.plan import plan
from pipelines.steps.collection.current_rows import current_rows
from pipelines.sync import sync
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, GateError
from transforms import milvus

TOTAL = 3 * ROWS + STRANGE


def served(config: Any) -> int:
    with milvus.connected(config.collection) as connection:
        name = milvus.served(connection, config.name)
        return int(connection.client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"]) if name else 0


def test_a_first_run_over_a_limit_serves_nothing_and_a_higher_limit_finds_what_was_embedded(tmp_path: Path) -> None:
    config = planted(tmp_path, verify={"max_outliers": 0.01, "max_duplicates": 0.5})
    path = tmp_path / "vecbeam.yaml"
    result = CliRunner().invoke(app, ["backfill", str(path), "--json", "--quiet"])
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert (
        "of the rows are outliers, verify.max_outliers allows 1.00%; the farthest are strange"
        in found["error"]["message"]
    )
    assert found["vectors"]["outliers"] == pytest.approx(STRANGE / TOTAL, abs=0.02)
    assert found["vectors"]["duplicates"] < 0.5
    assert served(config) == 0
    assert (
        "gate        the vectors are compared first: near duplicates"
        in CliRunner().invoke(app, ["plan", str(path)]).stdout
    )
    report = backfill(load_config(path, ["verify.max_outliers=0.2"]))
    assert report.chunks.embedded == 0
    assert report.verify.published
    assert served(config) == TOTAL
    shown = CliRunner().invoke(app, ["report", str(path)]).stdout
    assert "vectors   " in shown
    assert " near duplicates, " in shown
    milvus.release(config.collection)


def test_duplicates_are_refused_in_a_sync_and_what_is_served_stays(tmp_path: Path) -> None:
    config = planted(tmp_path, verify={"max_duplicates": 0.05, "duplicates_above": 0.999})
    backfill(config)
    before = current_rows(config).snapshot.id
    copies = [{**one, "id": f"copy{at}"} for at, one in enumerate(records()[10:40])]
    write_jsonl(tmp_path / "corpus" / "b.jsonl", copies)
    with pytest.raises(GateError, match=r"near duplicates of others .* verify.max_duplicates allows 5.00%") as refused:
        sync(config)
    assert "the collection tested_" in refused.value.message
    assert "stays as it is" in refused.value.message
    assert served(config) == TOTAL
    assert current_rows(config).snapshot.id == before
    (tmp_path / "corpus" / "b.jsonl").unlink()
    assert sync(config).exit_code == 0
    # A snapshot that became current without the limit is not loaded with it.
    write_jsonl(tmp_path / "corpus" / "b.jsonl", copies)
    free = load_config(tmp_path / "vecbeam.yaml", ["verify.max_duplicates=1"])
    other = {"uri": str(tmp_path / "other.db"), "index": {"type": "FLAT"}}
    sync(free)
    elsewhere = config.model_copy(update={"collection": config.collection.model_copy(update={"uri": other["uri"]})})
    with pytest.raises(GateError, match="near duplicates"):
        load(elsewhere)
    milvus.release(config.collection)
    milvus.release(elsewhere.collection)


def test_drift_is_that_of_new_items_against_what_is_served(tmp_path: Path) -> None:
    config = planted(tmp_path, verify={"max_drift": 0.6})
    first = backfill(config)
    assert first.vectors is not None
    assert (first.vectors.drift, first.vectors.reason) == (None, "nothing is served yet")
    topics = list(TOPICS)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [record(topics[n % 3], 500 + n) for n in range(60)])
    usual = sync(config)
    assert usual.vectors is not None
    assert usual.vectors.new_items == 60
    assert usual.vectors.drift_low is not None
    assert usual.vectors.drift_low < 0.6
    write_jsonl(tmp_path / "corpus" / "c.jsonl", [record("sky", 600 + n) for n in range(60)])
    with pytest.raises(
        GateError, match=r"tells the 60 new items .* verify.max_drift allows 0.6; the most unlike are sky"
    ):
        sync(config)
    assert served(config) == TOTAL + 60
    write_jsonl(tmp_path / "corpus" / "c.jsonl", [record("sky", 700)])
    few = sync(config)
    assert few.vectors is not None
    assert "too few to tell" in few.vectors.reason
    assert plan(config).vectors == ""  # nothing to do
    milvus.release(config.collection)


@pytest.mark.parametrize("limit", ["max_duplicates=1.5", "max_outliers=-1", "max_drift=0.4", "duplicates_above=0"])
def test_limits_out_of_range_are_refused(tmp_path: Path, limit: str) -> None:
    planted(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"verify.{limit.split('=')[0]}"):
        load_config(tmp_path / "vecbeam.yaml", [f"verify.{limit}"])


def test_limits_need_a_dense_vector(tmp_path: Path) -> None:
    config = planted(tmp_path, encoder={"model": "bm25"}, verify={"max_drift": 0.7})
    with pytest.raises(
        ConfigurationError, match=r"verify.max_drift is measured with dense vectors, and the rows have none"
    ):
        backfill(config)
