"""An accelerator: other workers read and chunk, only names travel, and the hint is on one stage alone."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

import vecbeam
from pipelines.run.jobs import beam_job
from pipelines.run.jobs.beam_options import pipeline_options
from pipelines.run.plan_text import text
from pipelines.run.progress import Progress
from pipelines.run.session import running
from pipelines.steps.corpus.changes import Changes, find_changes
from pipelines.steps.corpus.source import prepare
from pipelines.steps.judgement.standing import Standing
from pipelines.steps.snapshot.one_job import OneJob
from schemas.config import Config
from schemas.config.gpu_workers import gpu_words
from schemas.config.loader import parse_config
from schemas.errors import ConfigurationError
from schemas.run_plan import Plan
from tests.two_workers import counted_bytes, embed, embedding_of, job_server
from transforms.embed.public.read_items import ShardWork
from transforms.embed.record import read_records
from transforms.embed.stage import EmbedShards, WriteRecords
from transforms.read import Shard

ROWS, DIMENSIONS = 1000, 384
HINTS = {"accelerator": "type:nvidia-tesla-t4;count:1", "min_ram": "16GB"}
URNS = {"accelerator": "beam:resources:accelerator:v1", "min_ram": "beam:resources:min_ram_bytes:v1"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accelerator")
    for file in range(2):
        texts = [{"id": f"{file}-{at}", "text": f"item {at} of {file} " + "word " * 40} for at in range(ROWS // 2)]
        (folder / f"{file}.jsonl").write_text("\n".join(map(json.dumps, texts)))
    return folder


def configured(corpus: Path, name: str, runner: dict[str, Any], **encoder: str) -> Config:
    return parse_config(
        {
            "name": "docs",
            "corpus": {"paths": [str(corpus / "*.jsonl")]},
            "encoder": {"model": "fake", "dimensions": DIMENSIONS, **encoder},
            "batch_rows": 100,
            "checkpoint": str(corpus / name),
            "collection": {"uri": "http://127.0.0.1:9"},
            "runner": {**runner, **({} if runner["name"] == "local" else {"mounted": [str(corpus)]})},
        },
        folder=corpus,
    )


def proto_of(config: Config, corpus: Path) -> beam_runner_api_pb2.Pipeline:
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions())
    shards = pipeline | beam.Create([ShardWork(Shard("a", 0, (), 0, 0), {})]) | beam.Reshuffle()
    _ = shards | "EmbedShards" >> EmbedShards(embedding_of(config, corpus)) | WriteRecords("records")
    return pipeline.to_runner_api()


def compared_and_embedded(config: Config) -> Changes:
    """Runs the job that compares and embeds, and nothing after it."""
    with running("backfill", config, Progress(quiet=True)) as session:
        job = OneJob(session, "", Standing(), allow_deletes=False)
        return find_changes(session, prepare(config), None, session.uri("diff"), combined=job)


def proto_of_one_job(config: Config, monkeypatch: pytest.MonkeyPatch) -> beam_runner_api_pb2.Pipeline:
    found: list[beam_runner_api_pb2.Pipeline] = []

    def run(_: Config, build: Callable[[beam.Pipeline], Any], *_jobs: Any) -> Counter[str]:
        pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions())
        build(pipeline)
        found.append(pipeline.to_runner_api())
        return Counter()

    monkeypatch.setattr(beam_job, "run", run)
    compared_and_embedded(config)
    [proto] = found
    return proto


def steps_by_hints(proto: beam_runner_api_pb2.Pipeline) -> dict[frozenset[tuple[str, bytes]], set[str]]:
    """The names of the steps that run functions, by the hints of their environment."""
    found = defaultdict(set)
    for transform in proto.components.transforms.values():
        if transform.spec.urn == "beam:transform:pardo:v1":
            hints = proto.components.environments[transform.environment_id].resource_hints
            found[frozenset(hints.items())].add(transform.unique_name.removeprefix("EmbedShards/"))
    return dict(found)


EMBEDDED = {"EmbedTables/ReadChunks", "EmbedTables/EmbedBatches/Embed/Embed", "EmbedTables/EmbedBatches/Checkpoint"}


@pytest.mark.parametrize("compares", [False, True])
def test_the_hints_are_on_the_embedding_stage_and_nowhere_else(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, compares: bool
) -> None:
    if compares:
        runner = {"name": "portable", "job_endpoint": "localhost:9", "local_below": 0}
        proto = proto_of_one_job(configured(corpus, "never", runner, **HINTS), monkeypatch)
    else:
        proto = proto_of(configured(corpus, "never", {"name": "local"}, **HINTS), corpus)
    by_hints = steps_by_hints(proto)
    wanted = frozenset({(URNS["accelerator"], HINTS["accelerator"].encode()), (URNS["min_ram"], b"16000000000")})
    assert set(by_hints) == {frozenset(), wanted}
    assert {name.split("/ParDo")[0] for name in by_hints[wanted]} == EMBEDDED
    others = by_hints[frozenset()]
    assert compares == any("FindChanges" in name for name in others)
    assert {"Read/Read/ParDo(_ReadShard)", "FindPart", "WriteChunks"} <= {name.split("/ParDo(_F")[0] for name in others}

    stages = translations.create_and_optimize_stages(
        proto, phases=translations.standard_optimize_phases(), known_runner_urns=frozenset()
    )[1]
    hinted = [
        [transform.unique_name for transform in stage.transforms]
        for stage in stages
        if stage.environment and proto.components.environments[stage.environment].resource_hints
    ]
    assert len(hinted) == 1, hinted
    assert all(any(step in name for name in hinted[0]) for step in EMBEDDED)


def test_without_an_accelerator_the_graph_is_one_stage(corpus: Path) -> None:
    proto = proto_of(configured(corpus, "never", {"name": "local"}), corpus)
    [(hints, names)] = steps_by_hints(proto).items()
    assert not hints
    assert not any("Chunks" in name for name in names if not name.startswith("Chunk/"))


def rows_of(checkpoint: Path) -> dict[str, Any]:
    return {file.name: pq.read_table(file) for file in sorted(checkpoint.rglob("parts/*.parquet"))}


def test_names_travel_between_two_worker_processes_and_the_parts_are_the_same(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(configured(corpus, "plain", {"name": "local"}), corpus / "plain-run")
    plain = rows_of(corpus / "plain")
    assert sum(table.num_rows for table in plain.values()) == ROWS

    crossed = counted_bytes(monkeypatch)
    with job_server() as runner:
        given = embed(configured(corpus, "hinted", runner, **HINTS), corpus / "run")
    # The shards, the names of ten tables and the records of ten parts.
    assert 0 < sum(crossed.values()) / ROWS < 30

    hinted = rows_of(corpus / "hinted")
    assert hinted.keys() == plain.keys()
    assert all(hinted[name].equals(plain[name]) for name in plain)
    parts, _ = read_records(str(corpus / "run" / "records"))
    assert sorted(parts.column("part").to_pylist()) == sorted(plain)
    assert sum(parts.column("rows_embedded").to_pylist()) == ROWS
    tables = sorted(path.name for path in (corpus / "run" / "chunks").iterdir())
    assert tables == sorted(plain)
    given.remove_leftovers()
    assert not (corpus / "run" / "chunks").exists()
    assert not list((corpus / "hinted").rglob("attempts/*"))


def test_a_job_that_compares_too_sends_no_more_than_both_alone(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crossed = counted_bytes(monkeypatch)
    with job_server() as runner:
        threads = {"environment_type": "beam:env:embedded_python_grpc:v1", "environment_config": "", "local_below": 0}
        config = configured(corpus, "compared", {**runner, **threads}, **HINTS)
        with running("backfill", config, Progress(quiet=True)) as session:
            find_changes(session, prepare(config), None, session.uri("diff"))
        alone = sum(crossed.values())
        crossed.clear()
        found = compared_and_embedded(config)
    assert found.surveyed == ROWS
    # In addition to digests and a sample: the names of ten tables, and the records of ten parts.
    assert 0 < (sum(crossed.values()) - alone) / ROWS < 30
    folder = Path(found.source.checkpoint.root) / found.source.checkpoint.space_id
    assert sum(table.num_rows for table in rows_of(folder).values()) == ROWS


def test_a_backfill_leaves_no_table_of_chunks_and_gc_removes_those_of_a_killed_run(tmp_path: Path) -> None:
    texts = [{"id": f"{at}", "text": f"item {at}"} for at in range(25)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, texts)))
    values = {
        "name": "docs",
        "corpus": {"paths": ["*.jsonl"]},
        "encoder": {"model": "fake", **HINTS},
        "batch_rows": 10,
        "checkpoint": "./checkpoint",
        "collection": {"uri": "./milvus.db"},
    }
    config = parse_config(values, folder=tmp_path)
    report = vecbeam.backfill(config)
    assert (report.chunks.embedded, report.chunks.loaded) == (25, 25)
    root = tmp_path / "checkpoint" / "docs"
    names = {path.relative_to(root).parts[1] for path in root.rglob("*.parquet")}
    assert not {name for name in names if name in ("chunks", "attempts")}
    assert not list(root.glob("runs/*/chunks"))

    left = [root / "runs/killed/chunks/a.parquet", root / report.space / "attempts/a.json"]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    assert vecbeam.gc(config, yes=True).removed
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"min_ram": "16GB"}, "min_ram '16GB' is for workers with an accelerator: set accelerator"),
        ({"accelerator": "type:t4", "min_ram": "plenty"}, "encoder.min_ram"),
        ({"accelerator": "type:t4", "min_ram": "16"}, "encoder.min_ram"),
    ],
)
def test_memory_is_a_size_and_is_for_the_workers_with_the_accelerator(
    corpus: Path, encoder: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configured(corpus, "never", {"name": "local"}, **encoder)


T4 = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"


def on_dataflow(accelerator: str | None = T4, **runner: Any) -> Config:
    return parse_config(
        {
            "name": "docs",
            "corpus": {"paths": ["gs://bucket/*.jsonl"]},
            "encoder": {"model": "fake", **({"accelerator": accelerator} if accelerator else {})},
            "checkpoint": "gs://bucket/checkpoints",
            "collection": {"uri": "http://127.0.0.1:9"},
            "runner": {"name": "dataflow", "project": "p", "region": "r", "temp_location": "gs://bucket/t", **runner},
        }
    )


@pytest.mark.parametrize(
    ("accelerator", "runner", "experiments", "threads", "said"),
    [
        (T4, {}, ["no_use_multiple_sdk_containers"], 4, "one process with one model and 4 threads"),
        (T4, {"experiments": "a,b"}, ["a", "b", "no_use_multiple_sdk_containers"], 4, "4 threads"),
        (T4, {"number_of_worker_harness_threads": 9}, ["no_use_multiple_sdk_containers"], 9, "9 threads"),
        (T4, {"experiments": ["use_multiple_sdk_containers"]}, ["use_multiple_sdk_containers"], None, "for each vCPU"),
        (f"{T4};use_nvidia_mps", {}, None, None, "several processes share the GPU"),
        (None, {}, None, None, ""),
    ],
)
def test_dataflow_gets_one_process_for_a_gpu_unless_the_configuration_says_otherwise(
    accelerator: str | None, runner: dict[str, Any], experiments: list[str] | None, threads: int | None, said: str
) -> None:
    config = on_dataflow(accelerator, **runner)
    options = pipeline_options(config).view_as(DebugOptions)
    assert (options.experiments, options.number_of_worker_harness_threads) == (experiments, threads)
    words = gpu_words(config.accelerator, config.runner.options)
    assert said in words
    assert bool(words) == bool(said)
    assert f"workers     {words}" in text(Plan(name="docs", workers=words)) or not words


@pytest.mark.parametrize(
    ("accelerator", "runner", "said"),
    [
        (T4, {"dataflow_service_options": ["worker_accelerator=type:t4;count:1"]}, "gives every worker an accelerator"),
        (T4, {"flexrs_goal": "COST_OPTIMIZED"}, "FlexRS does not support resource hints"),
        (
            f"{T4};use_nvidia_mps",
            {"experiments": ["no_use_multiple_sdk_containers"]},
            "starts one process on a worker, and use_nvidia_mps",
        ),
        ("type:nvidia-l4;count:2;use_nvidia_mps", {}, "only on workers with one GPU, and count is 2"),
        (
            None,
            {
                "dataflow_service_options": "worker_accelerator=type:t4;count:1;use_nvidia_mps",
                "experiments": "no_use_multiple_sdk_containers",
            },
            "starts one process on a worker, and use_nvidia_mps",
        ),
    ],
)
def test_what_dataflow_does_not_allow_together_is_refused(
    accelerator: str | None, runner: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        on_dataflow(accelerator, **runner)


def test_a_wrong_threads_option_is_beams_to_refuse() -> None:
    with pytest.raises(ConfigurationError, match="number_of_worker_harness_threads"):
        pipeline_options(on_dataflow(number_of_worker_harness_threads="many"))
