"""A first backfill on other machines is two jobs, and finds duplicate ids before it embeds, as on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from conftest import empty
from corpora import configure, text, write_jsonl
from job_server_here import job_server, lite_server, runner_of

from pipelines.backfill import backfill
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, CorpusError
from schemas.run_report import Report
from transforms.checkpoint import Checkpoint

LOCAL = ["runner={name: local}", "name=here"]
THREADS = ["runner.environment_type=beam:env:embedded_python_grpc:v1", "runner.environment_config=''"]
"""Workers that are threads of this process: they start at once."""


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[LocalJobServicer, str]]:
    with job_server() as found:
        yield found


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lite_server(tmp_path_factory.mktemp("lite")) as uri:
        yield uri


@pytest.fixture
def path(tmp_path: Path, server: tuple[LocalJobServicer, str], lite: str) -> Iterator[Path]:
    """60 items in three files, whose shards are several batches each."""
    for file in range(3):
        items = [{"id": f"{file}-{number}", "text": text(20 * file + number)} for number in range(20)]
        write_jsonl(tmp_path / "corpus" / f"{file}.jsonl", items)
    configure(
        tmp_path,
        corpus={"paths": [str(tmp_path / "corpus" / "*")]},
        collection={"uri": lite},
        batch_rows=8,
        checkpoint=str(tmp_path / "checkpoint"),
        runner=runner_of(server[1], tmp_path),
    )
    yield tmp_path / "vecbeam.yaml"
    empty(lite)


def jobs(report: Report | None) -> list[str]:
    assert report is not None
    return [job.step for job in report.remote_jobs]


def parts(config: Config) -> dict[str, Any]:
    """The rows of each part of the newest snapshot."""
    folder = Path(config.checkpoint) / config.name
    [space] = [found.parent.name for found in folder.glob("*/space.json")]
    checkpoint = Checkpoint(config.checkpoint, config.name, space)
    snapshot = checkpoint.current_snapshot()
    assert snapshot is not None
    return {part.name: checkpoint.read_live(part).to_pylist() for part in snapshot.live_parts}


def test_comparing_and_embedding_are_one_job(path: Path) -> None:
    here, there = load_config(path, LOCAL), load_config(path, THREADS)
    locally, by_jobs = backfill(here), backfill(there)
    assert jobs(by_jobs) == ["embed", "load", "verify"]
    assert (by_jobs.items, by_jobs.chunks) == (locally.items, locally.chunks)
    assert (by_jobs.verify, by_jobs.plan) == (locally.verify, locally.plan)
    assert parts(there) == parts(here)
    runs = Path(there.checkpoint) / there.name / "runs"
    assert not [file for file in runs.glob("*/**/*") if file.is_file() and file.name != "report.json"]
    again = backfill(load_config(path, [*THREADS, "runner.local_below=1 GB"]))
    assert (jobs(again), again.chunks.embedded) == ([], 0)


def add_duplicates(path: Path) -> None:
    items = [{"id": name, "text": f"another text of {name}"} for name in ("new", "0-7", "2-19", "0-7")]
    write_jsonl(path.parent / "corpus" / "9.jsonl", items)


def test_duplicate_ids_across_files_end_the_run_before_anything_is_embedded(path: Path) -> None:
    add_duplicates(path)
    errors = []
    for options in (LOCAL, THREADS):
        config = load_config(path, options)
        with pytest.raises(CorpusError) as refused:
            backfill(config)
        errors.append(refused.value)
        assert not list(Path(config.checkpoint).glob(f"{config.name}/*/parts/*"))
    assert errors[0].message == errors[1].message
    assert "ids that more than one item has: 3" in errors[1].message
    assert jobs(errors[1].report) == ["embed"]


def test_items_that_are_left_out_are_those_of_one_machine(path: Path) -> None:
    add_duplicates(path)
    changes = ["corpus.on_duplicate=last"]
    here, there = load_config(path, [*LOCAL, *changes]), load_config(path, [*THREADS, *changes])
    locally, by_jobs = backfill(here), backfill(there)
    assert jobs(by_jobs) == ["embed", "embed", "load", "verify"], "the first one embeds nothing"
    assert (by_jobs.items, by_jobs.chunks, by_jobs.rejects) == (locally.items, locally.chunks, {"DuplicateId": 3})
    assert by_jobs.chunks.embedded == 61
    assert parts(there) == parts(here)


def test_a_field_that_no_record_has_is_refused_as_on_one_machine(path: Path) -> None:
    for options in (LOCAL, THREADS):
        config = load_config(path, [*options, "corpus.content=[body]"])
        with pytest.raises(ConfigurationError, match=r"corpus.content: no record has 'body'; they have id, text"):
            backfill(config)
        assert not list(Path(config.checkpoint).glob(f"{config.name}/*/parts/*"))
