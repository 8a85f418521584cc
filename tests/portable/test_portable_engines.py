"""Flink, Spark and Prism, where their programs lie on this machine; no package of PyPI or npm carries them.

VECBEAM_FLINK_JAR and VECBEAM_SPARK_JAR name Beam's job servers (`beam-runners-flink-1.19-job-server-2.77.0.jar`,
`beam-runners-spark-3-job-server-2.77.0.jar`; they need Java), and VECBEAM_PRISM names Beam's `prism` program. Workers
run in the launcher's process (LOOPBACK), on the engine's own threads and shuffles.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from cluster import Cluster, documents, running
from network_namespace import NamespaceUnavailableError

from schemas.config import Runner

FILES, ITEMS = 6, 40
ENGINES = {
    "flink": ("VECBEAM_FLINK_JAR", {"name": "flink", "flink_master": "[local]"}, "flink_job_server_jar"),
    "spark": ("VECBEAM_SPARK_JAR", {"name": "spark", "spark_master_url": "local[2]"}, "spark_job_server_jar"),
    "prism": ("VECBEAM_PRISM", {"name": "prism"}, "prism_location"),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with running(tmp_path_factory.mktemp("engines")) as found:
            yield found
    except NamespaceUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_gives_what_the_local_runner_gives(request: pytest.FixtureRequest, engine: str) -> None:
    variable, runner, option = ENGINES[engine]
    program = os.environ.get(variable, "")
    if not Path(program).is_file():
        pytest.skip(f"{variable} names no file: {engine} was not run")
    if engine not in get_args(Runner.model_fields["name"].annotation):
        pytest.skip(f"this vecbeam has no runner.name {engine}")
    cluster: Cluster = request.getfixturevalue("cluster")
    remote: dict[str, Any] = {"environment_type": "LOOPBACK", option: program}
    if "local_below" in Runner.model_fields:
        remote["local_below"] = 0
    here = cluster.configure(f"{engine}_here", "docs", "local")
    there = cluster.configure(f"{engine}_there", "docs", {**runner, **remote})
    cluster.put(here, documents("docs", FILES, ITEMS))
    for config in (here, there):
        done = cluster.vecbeam("backfill", config)
        assert done.code == 0, done.said
    assert done.answer["jobs"]
    assert cluster.state(there) == cluster.state(here)
