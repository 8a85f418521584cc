"""A job server with two workers, each in another file system, gives the same collection as the local runner.

The servers are real: SeaweedFS for S3, Milvus Lite over TCP, Beam's job server, all in a network namespace. The rest of
the tests with it are in `test_portable_runs` and `test_portable_faults`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from cluster import Cluster, documents, running
from network_namespace import NamespaceUnavailableError
from worker_roots import OTHER_VERSION

FILES, ITEMS = 12, 40
ROWS = FILES * ITEMS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with running(tmp_path_factory.mktemp("portable")) as found:
            yield found
    except NamespaceUnavailableError as error:
        pytest.skip(str(error))


def test_two_workers_elsewhere_give_what_the_local_runner_gives(cluster: Cluster) -> None:
    here = cluster.configure("here", "docs", "local")
    there = cluster.configure("there", "docs")
    cluster.put(here, documents("docs", FILES, ITEMS))
    runs = [cluster.vecbeam("backfill", config) for config in (here, there)]
    for run in runs:
        assert run.code == 0, run.said
        assert (run.answer["chunks"]["embedded"], run.answer["verify"]["found"]) == (ROWS, ROWS)
    assert (runs[0].answer["jobs"], len(runs[1].answer["jobs"]) > 0) == ([], True)

    states = [cluster.state(config) for config in (here, there)]
    assert len(states[0]["rows"]) == ROWS
    assert states[1] == states[0]

    embedded = {
        worker: facts["counters"]["chunks_embedded"]
        for job in cluster.jobs(runs[1].answer)
        for worker, facts in job["workers"].items()
        if "chunks_embedded" in facts["counters"]
    }
    assert set(embedded) == {"plain-1", "plain-2"}
    assert sum(embedded.values()) == ROWS


def test_workers_with_another_version_are_refused_with_both_named(cluster: Cluster) -> None:
    config = cluster.configure("another", "docs", "other_version")
    cluster.put(config, documents("docs", FILES, ITEMS))
    done = cluster.vecbeam("backfill", config)
    assert done.code == 1
    assert done.answer["error"]["class"] == "VersionMismatchError"
    assert f"has vecbeam {OTHER_VERSION}, and the run was started with vecbeam {version('vecbeam')}" in done.said
    assert f"install vecbeam {version('vecbeam')} on the workers" in done.said
    assert "while running" not in done.said
    assert "Traceback" not in done.said


@pytest.mark.skipif(os.environ.get("VECBEAM_PORTABLE") != "all", reason="make test-portable")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("foreign_schemas", "it has another package named schemas, which hides that of vecbeam"),
        ("foreign_transforms", "it has another package named transforms, which hides that of vecbeam"),
        ("without", "or it does not have this version of vecbeam"),
    ],
)
def test_a_worker_that_has_not_our_packages_is_named(cluster: Cluster, kind: str, said: str) -> None:
    config = cluster.configure(kind, "docs", kind)
    cluster.put(config, documents("docs", FILES, ITEMS))
    done = cluster.vecbeam("backfill", config)
    assert done.code == 1
    assert done.answer["error"]["class"] == "VersionMismatchError"
    assert said in done.answer["error"]["message"]
    assert "the launcher's version of vecbeam" in done.answer["error"]["remedy"]
    assert "Traceback" not in done.said
