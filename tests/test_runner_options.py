"""The section `runner`: options of each runner, checked before anything is read, and what runs without a job."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.utils import subprocess_server

from pipelines.run import plan_text
from pipelines.run.jobs import beam_job
from pipelines.run.jobs.beam_options import pipeline_options, prepare_filesystems
from pipelines.run.jobs.runner_options import check_program, check_values, program_fault
from pipelines.run.progress import Progress
from pipelines.run.session import Session
from pipelines.steps.snapshot.planned_jobs import planned_jobs
from schemas.config import Config
from schemas.config.loader import parse_config
from schemas.errors import ConfigurationError, MissingExtraError, VecbeamError
from schemas.run_plan import Plan
from transforms.support import metrics
from transforms.support.work_list import listed
from transforms.verify.part_groups import PART_GROUPS


def configured(folder: Path, **runner: Any) -> Config:
    return parse_config(
        {
            "name": "tested",
            "corpus": {"paths": ["gs://bucket/*.jsonl"]},
            "encoder": {"model": "all-MiniLM-L6-v2"},
            "checkpoint": "gs://bucket/checkpoint",
            "collection": {"uri": "http://127.0.0.1:9"},
            "runner": runner,
        },
        folder=folder,
    )


@pytest.mark.parametrize(
    ("runner", "says"),
    [
        ({"name": "dataflow", "projekt": "p"}, ["runner.projekt", "unknown to Beam", "did you mean project?"]),
        ({"name": "flink", "localbelow": 0}, ["runner.localbelow", "did you mean local_below?"]),
        ({"name": "portable", "zzzzzz": 1}, ["runner.zzzzzz", "check the spelling"]),
        ({"name": "dataflow", "flink_master": "h:1"}, ["runner.flink_master", "an option of runner flink", "dataflow"]),
        ({"name": "flink", "prism_location": "/p"}, ["runner.prism_location", "set runner.name: prism"]),
        ({"name": "dataflow", "num_workers": "many"}, ["runner", "num_workers", "many"]),
    ],
)
def test_an_option_that_the_runner_does_not_have_is_refused(
    tmp_path: Path, runner: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        pipeline_options(configured(tmp_path, **runner))
    for part in says:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("runner", "says"),
    [
        ({"name": "local", "direct_num_workers": -3}, ["runner.direct_num_workers: -3", "0 for one per core"]),
        ({"name": "portable"}, ["runner.job_endpoint: missing", "HOST:PORT"]),
        ({"name": "portable", "job_endpoint": "flink"}, ["runner.job_endpoint: flink", "HOST:PORT"]),
        ({"name": "flink", "job_endpoint": "host:99999"}, ["runner.job_endpoint: host:99999", "HOST:PORT"]),
        (
            {"name": "portable", "job_endpoint": "h:9", "environment_type": "DOKCER"},
            ["runner.environment_type: DOKCER", "DOCKER, PROCESS, EXTERNAL, LOOPBACK"],
        ),
        ({"name": "dataflow"}, ["runner.project: missing"]),
        ({"name": "dataflow", "project": "p"}, ["runner.temp_location: missing", "gs://BUCKET/FOLDER"]),
        ({"name": "dataflow", "project": "p", "temp_location": "s3://b/t"}, ["runner.temp_location: s3://b/t"]),
        (
            {"name": "dataflow", "project": "p", "temp_location": "gs://b", "staging_location": "gs://"},
            ["runner.staging_location: gs://"],
        ),
        (
            {"name": "dataflow", "project": "p", "region": "europe-west4-a"},
            ["runner.region: europe-west4-a is a zone", "europe-west4 and runner.worker_zone: europe-west4-a"],
        ),
    ],
)
def test_a_value_with_which_no_job_starts_is_refused_before_anything_is_read(
    tmp_path: Path, runner: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        prepare_filesystems(configured(tmp_path, **runner))
    for part in says:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "runner",
    [
        {"name": "local", "direct_num_workers": 0},
        {"name": "portable", "job_endpoint": "embed", "environment_type": "loopback"},
        {"name": "flink", "job_endpoint": "[::1]:8099", "environment_type": "beam:env:external:v1"},
        {"name": "dataflow", "project": "p", "region": "us-east1", "staging_location": "gs://bucket/staging"},
    ],
)
def test_other_values_are_left_to_the_runner(tmp_path: Path, runner: dict[str, Any]) -> None:
    check_values(configured(tmp_path, **runner))


@pytest.mark.parametrize(
    ("name", "key"),
    [("flink", "flink_job_server_jar"), ("spark", "spark_job_server_jar"), ("prism", "prism_location")],
)
def test_a_program_that_is_missing_is_named(
    tmp_path: Path, name: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.jar"
    with pytest.raises(ConfigurationError, match=rf"runner\.{key}: {missing} does not exist"):
        prepare_filesystems(configured(tmp_path, name=name, **{key: str(missing)}))
    with pytest.raises(ConfigurationError, match=rf"runner\.{key}: {tmp_path} is not a file"):
        prepare_filesystems(configured(tmp_path, name=name, **{key: str(tmp_path)}))
    # A job server that runs already needs none of it.
    check_program(configured(tmp_path, name=name, job_endpoint="localhost:9", **{key: str(missing)}))
    if name == "prism":
        return
    text = tmp_path / "text.jar"
    text.write_text("not a jar")
    with pytest.raises(ConfigurationError, match=r"is not a jar"):
        check_program(configured(tmp_path, name=name, **{key: str(text)}))
    jar = tmp_path / "server.jar"
    with zipfile.ZipFile(jar, "w") as file:
        file.writestr("META-INF/MANIFEST.MF", "")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigurationError, match="no program java on PATH"):
        check_program(configured(tmp_path, name=name, **{key: str(jar)}))
    monkeypatch.setattr(shutil, "which", lambda _: sys.executable)
    check_program(configured(tmp_path, name=name, **{key: str(jar)}))


def test_a_release_of_prism_is_one_of_beam_s(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"runner\.prism_location: Beam does not take https://other/prism"):
        check_program(configured(tmp_path, name="prism", prism_location="https://other/prism"))
    release = "https://github.com/apache/beam/releases/tag/v2.77.0"
    check_program(configured(tmp_path, name="prism", prism_location=release))


def test_a_job_server_that_beam_can_t_fetch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "java").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(subprocess_server.JavaJarServer, "JAR_CACHE", str(tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nothing listens there
        jar = f"http://127.0.0.1:{free.getsockname()[1]}/server.jar"
        config = configured(tmp_path, name="flink", environment_type="LOOPBACK", flink_job_server_jar=jar)
        check_program(config)
        with pytest.raises(VecbeamError) as refused:
            beam_job.run(config, lambda start: start | beam.Create([1]), Session("load", config, Progress(quiet=True)))
    assert refused.value.message.startswith(f"runner.flink_job_server_jar: {jar}, and Beam can't fetch {jar} (<urlopen")
    assert "set runner.flink_job_server_jar to its path" in refused.value.remedy


def test_a_job_server_that_ends_at_once_is_named(tmp_path: Path) -> None:
    config = configured(tmp_path, name="spark", spark_job_server_jar="/jars/spark.jar")
    error = program_fault(config, "Service failed to start up with error 1")  # as Beam says it
    assert error is not None
    assert error.message == "runner.spark_job_server_jar: /jars/spark.jar ended with code 1 when Beam started it"
    assert program_fault(config, "no space left on device") is None


@pytest.mark.parametrize(
    ("given", "size"), [("256 MB", 256_000_000), ("1.5GiB", 3 << 29), (7, 7), ("0", 0), (None, 256_000_000)]
)
def test_a_size_is_bytes_or_a_text(tmp_path: Path, given: Any, size: int) -> None:
    runner = {"name": "dataflow"} | ({} if given is None else {"local_below": given})
    assert configured(tmp_path, **runner).runner.local_below == size


@pytest.mark.parametrize("given", ["much", "3 TB", -1, True, 1.5, "-1 MB"])
def test_another_size_is_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"runner\.local_below.*(256 MB|below 0)"):
        configured(tmp_path, name="dataflow", local_below=given)


def test_little_work_runs_where_the_command_runs(tmp_path: Path) -> None:
    config = configured(tmp_path, name="dataflow", local_below=1000)
    assert beam_job.runs_here(config, 999)
    assert not beam_job.runs_here(config, 1000)
    assert not beam_job.runs_here(config, None)
    assert not beam_job.runs_here(configured(tmp_path, name="dataflow", local_below=0), 0)
    assert beam_job.runs_here(configured(tmp_path), None)


@pytest.mark.parametrize(
    ("name", "key", "variable"),
    [
        ("flink", "flink_job_server_jar", "VECBEAM_FLINK_JAR"),
        ("spark", "spark_job_server_jar", "VECBEAM_SPARK_JAR"),
        ("prism", "prism_location", "VECBEAM_PRISM"),
    ],
)
def test_a_job_of_each_runner_groups_and_counts(tmp_path: Path, name: str, key: str, variable: str) -> None:
    program = os.environ.get(variable)
    if not program:
        pytest.skip(f"{variable} names no file: no package has the program of runner {name}")
    config = configured(tmp_path, name=name, environment_type="LOOPBACK", **{key: program})
    check_program(config)
    session = Session("backfill", config, Progress(quiet=True))
    uri = str(tmp_path / "work" / "list.parquet")
    with listed([(number,) for number in range(20_000)], PART_GROUPS, uri) as work:

        def build(pipeline: beam.Pipeline) -> Any:
            numbers = pipeline | "Work" >> work
            return (
                numbers
                | beam.Map(lambda group: (group[0] % 7, group[0]))
                | beam.GroupByKey()
                | beam.Map(lambda group: metrics.count("items_done", sum(group[1])))
            )

        counters = beam_job.run(config, build, session)
    assert counters["items_done"] == sum(range(20_000))
    [job] = session.report.remote_jobs
    assert job.runner == name
    assert job.seconds


@pytest.mark.parametrize(
    ("changed", "embedded", "accelerator", "runnable", "jobs"),
    [
        (999, 0, None, True, []),
        (999, 1, None, True, ["embed"]),  # counts as 64 bytes read
        (100, 0, "type:nvidia-l4;count:1", True, ["embed"]),
        (100, 0, None, False, ["embed"]),
        (5000, 5000, None, True, ["embed", "load and verify"]),  # the first one compares too
        (5000, 5000, "type:nvidia-l4;count:1", True, ["embed", "load and verify"]),
    ],
)
def test_a_plan_names_the_steps_that_would_be_jobs(
    tmp_path: Path, changed: int, embedded: int, accelerator: str | None, runnable: bool, jobs: list[str]
) -> None:
    config = configured(tmp_path, name="dataflow", local_below=1000)
    encoder = config.vectors["vector"].model_copy(update={"accelerator": accelerator})
    config = config.model_copy(update={"encoder": encoder})

    def check_runnable() -> None:
        if not runnable:
            raise MissingExtraError("torch is not installed")

    models = SimpleNamespace(check_runnable=check_runnable)
    source = SimpleNamespace(changed_bytes=changed, ids_are_paths=False, refers_elsewhere=False, models=models)
    changes: Any = SimpleNamespace(
        source=source, base=None, lost=[], shards=[1], findings=None, surveyed=1, bytes_to_embed=embedded
    )
    found = planned_jobs(config, changes, changed)
    assert found == jobs
    [line] = plan_text.job_lines(Plan(name="tested", runner="dataflow", jobs=found))
    assert line.split(None, 1)[1].startswith(f"{len(jobs)} on dataflow: {', '.join(jobs)}" if jobs else "none on")
    assert list(plan_text.job_lines(Plan(name="tested", runner="local"))) == []
