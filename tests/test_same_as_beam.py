"""Runs whose graphs run on the calling thread give what they give with Beam's own local runner."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pipeline import PipelineVisitor
from corpora import configure, text, write_jsonl
from job_server_here import lite_server
from run_results import served_rows

from pipelines.backfill import backfill
from pipelines.reindex import reindex
from pipelines.run.jobs import beam_job, in_process
from pipelines.run.jobs.beam_options import options_here
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import CorpusError
from schemas.run_report import Report
from transforms import milvus
from transforms.checkpoint import merge
from transforms.verify import foreign_rows

COMPARED = {"command", "space", "items", "rejects", "rejected", "chunks", "tokens", "bytes", "verify", "plan", "steps"}
BEAM = {"name": "local", "direct_num_workers": 1}
ELSEWHERE = {"name": "portable", "job_endpoint": "localhost:9", "environment_type": "LOOPBACK", "local_below": 0}

OWN = {
    *("FindChanges", "OnceCompared", "EmbedShards", "EmbedTables", "WriteRecords", "MergeParts"),
    *("LoadParts", "FindDelta", "ApplyDelta", "CheckParts", "FinishCollection", "NearestParts", "FindForeign"),
}
"""What the graphs of vecbeam's jobs are made of."""


def records(first: int, end: int, kind: str = "plain") -> list[dict[str, Any]]:
    return [{"id": f"item-{number}", "text": text(number), "kind": kind} for number in range(first, end)]


def corpus(folder: Path) -> None:
    """60 items in three files, and three that are rejected."""
    for file in range(3):
        write_jsonl(folder / "corpus" / f"{file}.jsonl", records(20 * file, 20 * file + 20))
    write_jsonl(folder / "corpus" / "bad.jsonl", [{"id": "a"}, {"id": "b", "text": 7}, {"text": "no id"}])


def change(folder: Path) -> None:
    """New, changed, deleted and moved items."""
    (folder / "corpus" / "0.jsonl").rename(folder / "corpus" / "3.jsonl")
    changed = [*records(20, 25), *records(25, 30, "other"), *records(30, 38), *records(100, 107)]
    write_jsonl(folder / "corpus" / "1.jsonl", changed)


def configured(folder: Path, **changes: Any) -> Config:
    values = {"corpus": {"paths": ["corpus/*"], "metadata": {"kind": "string"}}, "batch_rows": 8, **changes}
    return configure(folder, verify={"max_rejected": 0.5}, **values)


def facts(report: Report) -> dict[str, Any]:
    return report.model_dump(include=COMPARED)


def parts(folder: Path) -> set[str]:
    return {f"{part.parents[1].name}/{part.name}" for part in folder.glob("checkpoint/tested/*/parts/*")}


def life(folder: Path, monkeypatch: pytest.MonkeyPatch, runner: dict[str, Any]) -> tuple[list[Any], set[str], Any]:
    """What the commands report and the jobs count, the parts, and the rows that are served at the end."""
    counted: list[Any] = []
    run = beam_job.run

    def counting(*given: Any, **options: Any) -> Counter[str]:
        counters = run(*given, **options)
        counted.append({name: value for name, value in counters.items() if not name.endswith("_us")})
        return counters

    monkeypatch.setattr(beam_job, "run", counting)
    folder.mkdir()
    corpus(folder)
    config = configured(folder, runner=runner)
    reports = [backfill(config)]
    change(folder)
    reports.append(sync(config))
    rows = served_rows(config)
    config = configured(folder, runner=runner, encoder={"model": "fake", "dimensions": 48})
    reports.append(reindex(config))
    assert set(rows) == set(served_rows(config))
    found = [*map(facts, reports), counted], parts(folder), served_rows(config)
    milvus.release(config.collection)
    shutil.rmtree(folder)  # the next one has the same paths
    return found


def test_backfill_sync_and_reindex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(beam.Pipeline, "run", None)  # none of the graphs is left to Beam
        own = life(tmp_path / "life", patched, {"name": "local"})
    with monkeypatch.context() as patched:
        patched.setattr(in_process.Graph, "run", None)
        beams = life(tmp_path / "life", patched, BEAM)
    assert own == beams
    assert [found["items"]["rejected"] for found in own[0][:3]] == [3, 3, 3]
    assert len(own[2]) == 65


def test_the_error_of_a_worker(tmp_path: Path) -> None:
    said = []
    for runner in ({"name": "local"}, BEAM):
        config = configured(tmp_path, runner=runner, checkpoint=f"checkpoint{len(runner)}")
        write_jsonl(tmp_path / "corpus" / "a.jsonl", records(0, 3) + records(0, 3))
        with pytest.raises(CorpusError) as raised:
            backfill(config)
        said.append((raised.value.message, raised.value.remedy))
    assert said[0] == said[1]


class Transforms(PipelineVisitor):  # type: ignore[misc]
    """The names of vecbeam's own transforms and functions in graphs."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def enter_composite_transform(self, node: Any) -> None:
        kind = type(node.transform)
        if kind.__module__.startswith("transforms."):
            self.names.add(kind.__name__)

    def visit_transform(self, node: Any) -> None:
        self.names.add(type(getattr(node.transform, "fn", None)).__name__)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[str]:
    with lite_server(tmp_path / "lite") as uri:
        yield uri


def test_the_graphs_of_jobs_on_other_machines_run_here_too(
    tmp_path: Path, lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_rows, "ROWS_OF_A_RANGE", 13)
    monkeypatch.setattr(merge, "MANY", 0)
    local = tmp_path / "local"
    local.mkdir()
    corpus(local)
    here = configured(local)
    backfill(here)
    seen = Transforms()

    def run_here(config: Config, build: Any, *_: Any, **__: Any) -> Counter[str]:
        pipeline = beam.Pipeline(runner="FnApiRunner", options=options_here(here))
        build(pipeline)
        graph = in_process.Graph(pipeline)
        assert graph.unsupported == []
        pipeline.visit(seen)
        return graph.run()

    monkeypatch.setattr(beam_job, "run", run_here)
    corpus(tmp_path)
    encoder = {"model": "fake", "dimensions": 32, "accelerator": "type:nvidia-tesla-t4;count:1"}
    config = configured(tmp_path, runner=ELSEWHERE, collection={"uri": lite}, encoder=encoder)
    report = backfill(config)
    assert report.verify.recall_at_10 is not None
    assert parts(tmp_path) == parts(local)
    change(tmp_path)
    assert sync(config).items.new == 7
    with milvus.connected(config.collection) as connection:
        name = str(milvus.served(connection, config.name))
        [row, *_] = connection.client.query(name, filter='id like "item-1%"', output_fields=["*"])
        connection.client.upsert(name, [{**row, "id": "foreign#0"}])
    assert verify(config, repair=True).verify.unexpected == 0
    assert seen.names >= OWN
