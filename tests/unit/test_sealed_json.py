"""Small files that steer a run: a bit that flips in them is found, and those of earlier releases are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipelines.run.jobs import left_job
from pipelines.run.jobs.left_job import LeftJob
from schemas.errors import CheckpointError
from schemas.layout import Space
from transforms.checkpoint import Checkpoint
from transforms.embed.attempts import History
from transforms.load.import_jobs import BegunJob, JobLedger, UnknownImportError
from transforms.load.upsert_parts import Ledger
from transforms.support.job import Job

SPACE = Space({"model": "all-MiniLM-L6-v2", "dimensions": 384})


def flipped(data: bytes) -> Iterator[bytes]:
    for at in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        yield bytes(damaged)


def parsed(parse: Callable[[bytes], Any], data: bytes, *refusals: type[Exception]) -> list[Any]:
    """What is read of the files with one flipped bit, where it is not refused."""
    found = []
    for damaged in flipped(data):
        try:
            found.append(parse(damaged))
        except refusals:
            continue
    return found


def test_a_marker_of_a_batch_never_accuses_another_item() -> None:
    history = History(deaths=2, suspects=(10, 20), accused=(3, 7), workers=("host",), at=(13, 14))
    found = parsed(History.from_json, history.as_json(), ValueError, KeyError, TypeError)
    assert found
    assert set(found) == {history}
    assert History.from_json(json.dumps(asdict(history)).encode()) == history


def test_a_job_of_an_import_never_names_another_part(tmp_path: Path) -> None:
    ledger = Ledger(Checkpoint(str(tmp_path), "tested", SPACE.id), "tested_1", "load")
    jobs = JobLedger(ledger)
    job = BegunJob(1, ("a-00000.parquet", "a-00001.parquet"), ("447",), "448")
    jobs.write(job)
    (file,) = Path(ledger.folder).iterdir()

    def parse(data: bytes) -> BegunJob:
        file.write_bytes(data)
        return jobs.open_jobs()[0]

    assert set(parsed(parse, file.read_bytes(), UnknownImportError)) == {job}
    assert parse(json.dumps(asdict(job)).encode()) == job


def test_a_left_job_never_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "state", lambda _: type("Done", (), {"name": "DONE"}))
    job = LeftJob(Job("7", "flink", {"endpoint": "host:8081"}), "run", "embed", "0a", {"records": str(tmp_path)})
    job.write(str(tmp_path))
    file = tmp_path / "runs" / "left.json"

    def parse(data: bytes) -> LeftJob | None:
        file.write_bytes(data)
        return left_job.finished(str(tmp_path))

    found = parsed(parse, file.read_bytes())
    assert found.count(None) > len(found) // 2
    assert all(one in (None, job) for one in found)


def test_a_space_is_that_of_its_folder(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(tmp_path), "tested", SPACE.id)
    checkpoint.write_space(SPACE)
    file = tmp_path / "tested" / SPACE.id / "space.json"

    def parse(data: bytes) -> Space:
        file.write_bytes(data)
        return checkpoint.read_space()

    data = file.read_bytes()
    assert all(space == SPACE for space in parsed(parse, data, CheckpointError))
    file.write_bytes(data.replace(b"384", b"385"))
    with pytest.raises(CheckpointError, match=r"space\.json: the file is damaged"):
        checkpoint.read_space()
