"""Jobs that end in the middle: a worker or the launcher is killed, Ctrl-C; then the same command.

`make test-portable` runs them, as each of them waits for several jobs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Done, documents, ended, running, until
from network_namespace import NamespaceUnavailableError

pytestmark = [
    pytest.mark.skipif(os.environ.get("VECBEAM_PORTABLE") != "all", reason="make test-portable"),
    pytest.mark.timeout(1800),
]
FILES, ITEMS = 60, 40
ROWS = FILES * ITEMS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with running(tmp_path_factory.mktemp("faults")) as found:
            yield found
    except NamespaceUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> dict[str, Any]:
    """What the local runner makes of the corpus."""
    config = cluster.configure("undisturbed", "many", "local")
    cluster.put(config, documents("many", FILES, ITEMS))
    assert cluster.vecbeam("backfill", config).code == 0
    return cluster.state(config)


def check_completed(cluster: Cluster, config: Path, done: Done, undisturbed: dict[str, Any]) -> None:
    assert done.code == 0, done.said
    assert done.answer["verify"]["found"] == ROWS
    assert cluster.state(config) == undisturbed


def workers_now(cluster: Cluster) -> list[dict[str, Any]]:
    """The workers of the newest job."""
    workers = cluster.namespace.lines("workers.jsonl")
    return [worker for worker in workers if worker["job"] == workers[-1]["job"]]


def test_a_worker_is_killed_and_the_same_command_continues(cluster: Cluster, undisturbed: dict[str, Any]) -> None:
    config = cluster.configure("worker_killed", "many")
    run = cluster.start("backfill", config)
    cluster.wait_for_parts(config, 3)
    os.kill(workers_now(cluster)[-1]["process"], signal.SIGKILL)
    first = ended(run)
    assert first.code == 1
    # Beam says that the worker has died, or that its channel closed: whatever it finds first.
    assert "the job on other machines ended as FAILED: RuntimeError: " in first.answer["error"]["message"]
    assert "the same command continues" in first.said
    assert "Traceback" not in first.said

    kept = cluster.rows_in_parts(config)
    assert 0 < kept < ROWS
    second = cluster.vecbeam("backfill", config)
    check_completed(cluster, config, second, undisturbed)
    assert second.answer["chunks"]["embedded"] == ROWS - kept


def test_the_launcher_is_killed_and_the_same_command_ends_as_undisturbed(
    cluster: Cluster, undisturbed: dict[str, Any]
) -> None:
    config = cluster.configure("launcher_killed", "many")
    run = cluster.start("backfill", config)
    cluster.wait_for_parts(config, 1)
    job = workers_now(cluster)[0]["job"]
    run.kill()
    ended(run)
    again = cluster.vecbeam("backfill", config)  # it waits for the job of the killed command, if that still runs
    check_completed(cluster, config, again, undisturbed)
    [left] = [line for line in cluster.namespace.lines("jobs.jsonl") if line["job"] == job]
    assert left["state"] == "DONE"
    assert [job["step"] for job in again.answer["remote_jobs"]] == ["load and verify"], (
        "the job had embedded everything"
    )
    assert again.answer["chunks"]["embedded"] == ROWS  # by that job


def test_ctrl_c_cancels_the_job_and_the_same_command_continues(cluster: Cluster, undisturbed: dict[str, Any]) -> None:
    config = cluster.configure("ctrl_c", "many")
    run = cluster.start("backfill", config)
    cluster.wait_for_parts(config, 1)
    workers = workers_now(cluster)
    os.kill(run.pid, signal.SIGINT)
    first = ended(run)
    assert first.code == 130
    [job] = until(lambda: [line for line in cluster.namespace.lines("jobs.jsonl") if line["job"] == workers[0]["job"]])
    assert job["state"] == "CANCELLED"
    assert not any(Path(f"/proc/{worker['process']}").exists() for worker in workers)

    kept = cluster.rows_in_parts(config)
    second = cluster.vecbeam("backfill", config)
    check_completed(cluster, config, second, undisturbed)
    assert second.answer["chunks"]["embedded"] == ROWS - kept
