"""Jobs that end in the middle: a worker or the launcher is killed, Ctrl-C, a cancellation; two launchers at once.

`make test-portable` runs them, as each of them waits for several jobs.
"""

from __future__ import annotations

import contextlib
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


@contextlib.contextmanager
def held(cluster: Cluster) -> Iterator[str]:
    """The workers of the newest job are stopped in the block, so that the job can't end by itself; yields its id."""
    workers = workers_now(cluster)
    for worker in workers:
        os.kill(worker["process"], signal.SIGSTOP)
    try:
        yield workers[0]["job"]
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker["process"], signal.SIGCONT)


def check_continues(cluster: Cluster, config: Path, first: Done, undisturbed: dict[str, Any]) -> None:
    """A job that ended early is reported without a traceback; the same command embeds only what is missing."""
    assert "Traceback" not in first.said
    kept = cluster.rows_in_parts(config)
    assert 0 < kept < ROWS
    second = cluster.vecbeam("backfill", config)
    check_completed(cluster, config, second, undisturbed)
    assert second.answer["chunks"]["embedded"] == ROWS - kept


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
    check_continues(cluster, config, first, undisturbed)


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


def test_somebody_cancels_the_job_and_the_same_command_continues(cluster: Cluster, undisturbed: dict[str, Any]) -> None:
    config = cluster.configure("cancelled", "many")
    run = cluster.start("backfill", config)
    cluster.wait_for_parts(config, 1)
    with held(cluster) as job:
        cluster.cancel(config, job)
        first = ended(run)
    assert first.code == 1
    assert first.answer["error"]["class"] == "JobEndedError"
    assert "CANCELLED: somebody ended it" in first.answer["error"]["message"]
    assert "run the same command again" in first.answer["error"]["remedy"]
    check_continues(cluster, config, first, undisturbed)


def test_a_launcher_on_another_machine_is_refused_and_disturbs_nothing(
    cluster: Cluster, undisturbed: dict[str, Any]
) -> None:
    config = cluster.configure("two_machines", "many")
    run = cluster.start("backfill", config, host="machine-a")
    cluster.wait_for_parts(config, 1)
    with held(cluster) as job:
        refused = [cluster.vecbeam(command, config, host="machine-b") for command in ("backfill", "sync")]
    for second in refused:
        assert second.code == 1
        assert second.answer["error"]["class"] == "LockedError"
        assert f"(process {run.pid} on machine-a) with its portable job {job}" in second.answer["error"]["message"]
        assert "wait until it ends" in second.answer["error"]["remedy"]
    first = ended(run)
    check_completed(cluster, config, first, undisturbed)
    assert first.answer["chunks"]["embedded"] == ROWS
