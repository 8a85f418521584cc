"""A collection compared with its snapshot by jobs: the same findings as in the process that starts the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from corpora import configure, text, write_jsonl
from faults import damages
from job_server_here import THREADS, JobService, runner_of, steps_of

from pipelines.backfill import backfill
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import GateError
from schemas.run_report import Report
from transforms import milvus
from transforms.verify import foreign_rows, part_groups

ROWS = 60
LOCAL = ["runner={name: local}"]


@pytest.fixture
def path(tmp_path: Path, job_service: JobService, shared_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 rows in six parts, published, with a runner whose jobs compare each part and each few ids alone."""
    monkeypatch.setattr(part_groups, "GROUP_BYTES", 1)
    monkeypatch.setattr(foreign_rows, "ROWS_OF_A_RANGE", 13)
    items = [{"id": f"item-{number}", "text": text(number), "kind": "plain"} for number in range(ROWS)]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items)
    config = configure(
        tmp_path,
        corpus={"paths": [str(tmp_path / "corpus" / "*")], "metadata": {"kind": "string"}},
        collection={"uri": shared_uri, "index": {"type": "HNSW", "M": 8, "efConstruction": 64}},
        batch_rows=10,
        checkpoint=str(tmp_path / "checkpoint"),
        runner=runner_of(job_service[1], tmp_path),
    )
    backfill(load_config(tmp_path / "vecbeam.yaml", LOCAL))
    assert config.runner.local_below == 0
    return tmp_path / "vecbeam.yaml"


def damage(config: Config) -> None:
    """Other vectors and hashes, rows too few, and rows that the snapshot does not have."""
    with milvus.connected(config.collection) as connection:
        name = str(milvus.served(connection, config.name))
        rows = connection.client.query(name, filter='id like "item-1%"', output_fields=["*"])
        rows = sorted((dict(row) for row in rows), key=lambda row: str(row["id"]))
        vectors = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
        for row, vector in zip(rows, vectors, strict=False):
            row["vector"] = vector
        rows[2] |= {"text": "other", "kind": "other"}
        rows[5]["content_hash"] = "0" * 32
        foreign = [{**rows[8], "id": f"{prefix}-foreign#0"} for prefix in ("a", "item-3", "z", 'q"uoted')]
        connection.client.upsert(name, [*rows[:6], *foreign])
        connection.client.delete(name, ids=["item-20#0", "item-59#0"])
        connection.client.flush(name)


def found_by(config: Config, **options: Any) -> tuple[Report, str]:
    """The report of a comparison, and what it complained about."""
    try:
        return verify(config, **options), ""
    except GateError as error:
        return cast(Report, error.report), error.message


def test_a_good_and_a_damaged_collection_are_found_as_here(path: Path) -> None:
    here, there = load_config(path, LOCAL), load_config(path, THREADS)
    for options in ({}, {"quick": True}):
        locally, by_jobs = found_by(here, **options), found_by(there, **options)
        assert (by_jobs[0].verify, by_jobs[1]) == (locally[0].verify, "")
        assert by_jobs[0].verify.recall_at_10 == 1.0
        assert by_jobs[0].measured_indexes == locally[0].measured_indexes
        assert (steps_of(locally[0]), steps_of(by_jobs[0])) == ([], ["verify"]), "rows and recall are one job"

    damage(there)
    locally, by_jobs = found_by(here), found_by(there)
    assert (by_jobs[0].verify, by_jobs[1]) == (locally[0].verify, locally[1])
    found = by_jobs[0].verify
    assert (found.missing, found.unexpected, found.stale, found.damaged) == (2, 4, 1, 4)
    assert found.columns == {"text": 1, "vector": 4, "kind": 1}
    assert 'first: a-foreign#0, item-3-foreign#0, q"uoted-foreign#0' in by_jobs[1]
    assert steps_of(by_jobs[0]) == ["verify", "verify"], "ids are listed only if the number of rows is wrong"

    repaired = verify(there, repair=True, allow_deletes=True)
    assert repaired.verify.recall_at_10 == 1.0
    assert found_by(here)[1] == ""
    with milvus.connected(here.collection) as connection:
        held = damages.rows_of(connection, str(milvus.served(connection, here.name)))
    assert held == damages.in_checkpoint(here)
    runs = path.parent / "checkpoint" / here.name / "runs"
    assert not [file for file in runs.glob("*/**/*") if file.is_file() and file.name != "report.json"]


@pytest.mark.server
@pytest.mark.parametrize("shared_uri", ["server"], indirect=True)
def test_keys_that_a_server_holds_twice_are_found_as_here(path: Path) -> None:
    here, there = load_config(path, LOCAL), load_config(path, THREADS)
    with milvus.connected(here.collection) as connection:
        name = str(milvus.served(connection, here.name))
        rows = connection.client.query(name, filter='id in ["item-7#0", "item-33#0"]', output_fields=["*"])
        connection.client.insert(name, [dict(row) for row in rows])
        connection.client.flush(name)
    locally, by_jobs = found_by(here), found_by(there)
    assert (by_jobs[0].verify, by_jobs[1]) == (locally[0].verify, locally[1])
    assert "2 rows unexpected (first: item-7#0, item-33#0)" in by_jobs[1]
    assert steps_of(by_jobs[0]) == ["verify"] * 3


@pytest.mark.parametrize("shared_uri", ["lite"], indirect=True)
def test_what_a_sync_wrote_is_compared_by_workers(path: Path) -> None:
    items = [{"id": f"item-{number}", "text": text(number + 500), "kind": "new"} for number in range(20)]
    write_jsonl(path.parent / "corpus" / "more.jsonl", [{**item, "id": f"more-{item['id']}"} for item in items])
    report = sync(load_config(path, THREADS))
    assert report.verify.found == ROWS + 20
    assert steps_of(report) == ["embed", "load and verify"]
    assert found_by(load_config(path, LOCAL))[1] == ""


@pytest.mark.parametrize("shared_uri", ["lite"], indirect=True)
def test_workers_are_processes_of_their_own(path: Path) -> None:
    """Nothing but a process of its own shows what a worker does not have: no state of the launcher travels."""
    config = load_config(path)
    damage(config)
    locally, by_jobs = found_by(load_config(path, LOCAL)), found_by(config)
    assert (by_jobs[0].verify, by_jobs[1]) == (locally[0].verify, locally[1])
    assert steps_of(by_jobs[0]) == ["verify", "verify"]
