"""A collection that one job on other machines loads, finishes and compares: the same as in the process of the launcher.

A job of workers that are threads of this process runs with what a test replaces here; a killed worker is a process.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability.api import beam_job_api_pb2
from conftest import empty
from corpora import configure, text, write_jsonl
from faults import damages
from grpc_proxy import CountingProxy, counting
from job_server_here import THREADS, JobService, Notes, runner_of, state, steps_of, until, workers

from pipelines.backfill import backfill
from pipelines.load import load
from pipelines.plan import plan
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import JobEndedError
from schemas.run_report import LOAD_AND_VERIFY, Report
from transforms import milvus
from transforms.checkpoint import Checkpoint
from transforms.load.upsert_parts import Ledger
from transforms.verify import part_groups

ROWS = 60
LOCAL = ["runner={name: local}"]
HERE = ["runner.local_below=1 GB"]
"""All work is small."""


def items(first: int, end: int, other: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"item-{number:02}", "text": text(number + other), "kind": "plain"} for number in range(first, end)]


def write(folder: Path, uri: str, endpoint: str) -> Path:
    """The configuration of 60 items in four files, from which come eight parts, each compared alone."""
    for file in range(4):
        write_jsonl(folder / "corpus" / f"{file}.jsonl", items(15 * file, 15 * file + 15))
    configure(
        folder,
        corpus={"paths": [str(folder / "corpus" / "*")], "metadata": {"kind": "string"}, "max_deleted": 0.5},
        collection={"uri": uri, "index": {"type": "HNSW", "M": 8, "efConstruction": 64}},
        batch_rows=10,
        checkpoint=str(folder / "checkpoint"),
        runner=runner_of(endpoint, folder),
    )
    return folder / "vecbeam.yaml"


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_groups, "GROUP_BYTES", 1)


@pytest.fixture
def path(tmp_path: Path, job_service: JobService, shared_uri: str) -> Path:
    return write(tmp_path, shared_uri, job_service[1])


@pytest.fixture
def proxy(lite_uri: str) -> Iterator[CountingProxy]:
    with counting(lite_uri) as opened:
        yield opened
    empty(lite_uri)


@pytest.fixture
def path_of_proxy(tmp_path: Path, job_service: JobService, proxy: CountingProxy) -> Path:
    """Published on this machine; `load --rebuild` is one job."""
    path = write(tmp_path, proxy.uri, job_service[1])
    backfill(load_config(path, LOCAL))
    return path


def both(path: Path, *changes: str) -> tuple[Config, Config]:
    """The local runner, and workers on a job server; each with a collection and a checkpoint of its own."""
    return load_config(path, [*LOCAL, "name=alpha", *changes]), load_config(path, [*THREADS, "name=omega", *changes])


def check_served(config: Config) -> None:
    """What is served are the rows of the checkpoint, all columns and no row more; and nothing of a job is left."""
    with milvus.connected(config.collection) as connection:
        name = milvus.served(connection, config.name)
        assert name is not None
        assert damages.rows_of(connection, name) == damages.in_checkpoint(config)
    folder = Path(config.checkpoint) / config.name
    assert not [file for file in (folder / "runs").glob("*/**/*") if file.is_file() and file.name != "report.json"]
    assert not (folder / "loads").exists()


def check_same(locally: Report, by_jobs: Report) -> None:
    assert (by_jobs.items, by_jobs.chunks, by_jobs.verify) == (locally.items, locally.chunks, locally.verify)
    assert by_jobs.measured_indexes == locally.measured_indexes


@pytest.mark.parametrize("shared_uri", ["lite"], indirect=True)
def test_a_backfill_and_a_sync_are_two_jobs_each(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = both(path)
    locally, by_jobs = backfill(here), backfill(there)
    assert steps_of(by_jobs) == ["embed", LOAD_AND_VERIFY]
    check_same(locally, by_jobs)
    assert by_jobs.chunks.loaded == by_jobs.verify.found == ROWS
    assert by_jobs.verify.recall_at_10 == 1.0
    assert min(by_jobs.seconds.load, by_jobs.seconds.index, by_jobs.seconds.verify) > 0
    assert sum(by_jobs.seconds.model_dump(exclude={"total"}).values()) <= by_jobs.seconds.total
    check_served(there)

    corpus = path.parent / "corpus"
    write_jsonl(corpus / "0.jsonl", items(0, 10))  # five are gone
    write_jsonl(corpus / "1.jsonl", [*items(15, 20, other=500), *items(20, 28)])  # five are changed, two are gone
    write_jsonl(corpus / "4.jsonl", items(60, 75))
    planned, locally = plan(there), sync(here)
    order: list[str] = []
    for name in ("delete", "upsert"):
        monkeypatch.setattr(milvus, name, noting(order, name))
    by_jobs = sync(there)
    assert planned.jobs == steps_of(by_jobs) == ["embed", LOAD_AND_VERIFY]
    check_same(locally, by_jobs)
    assert (by_jobs.chunks.loaded, by_jobs.chunks.deleted, by_jobs.verify.found) == (20, 7, ROWS + 8)
    assert set(order) == {"delete", "upsert"}
    assert order == sorted(order), "rows of items that are gone are deleted before any row is written"
    check_served(there)

    (corpus / "3.jsonl").unlink()
    by_jobs = sync(there)
    assert (steps_of(by_jobs)[-1], by_jobs.chunks.loaded, by_jobs.chunks.deleted) == (LOAD_AND_VERIFY, 0, 15)
    check_served(there)


def noting(order: list[str], name: str) -> Callable[..., Any]:
    """A function of `milvus` that notes its calls."""
    plain = getattr(milvus, name)

    def note(*arguments: Any) -> Any:
        order.append(name)
        return plain(*arguments)

    return note


@pytest.mark.server
@pytest.mark.parametrize("shared_uri", ["server"], indirect=True)
def test_a_server_gets_its_rows_and_index_from_one_job(path: Path) -> None:
    _, there = both(path)
    report = backfill(there)
    assert (steps_of(report), report.verify.found, report.verify.recall_at_10) == (["embed", LOAD_AND_VERIFY], ROWS, 1)
    check_served(there)


@pytest.mark.parametrize("shared_uri", ["lite"], indirect=True)
def test_a_collection_that_is_not_whole_is_loaded_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, there = both(path)
    plain, lost = milvus.upsert, [1]

    def losing(connection: milvus.Milvus, spec: Any, rows: Any, *others: Any) -> int:
        if "item-07" in rows.column("item_id").to_pylist() and lost[0]:
            lost[0] -= 1
            return plain(connection, spec, rows.slice(0, rows.num_rows - 2), *others) + 2
        return plain(connection, spec, rows, *others)

    monkeypatch.setattr(milvus, "upsert", losing)
    notes = Notes()
    report = backfill(there, notes)
    assert steps_of(report) == ["embed", LOAD_AND_VERIFY, LOAD_AND_VERIFY]
    assert any(note.startswith("1 parts are not whole in omega") for note in notes.notes)
    assert (report.verify.found, report.verify.missing, report.chunks.loaded) == (ROWS, 0, ROWS + 10)
    check_served(there)


def failing_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose first call fails after it did its work, as for a worker that dies then."""
    calls: list[Sequence[Any]] = []

    def failing(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        found = function(*arguments, **named)
        if len(calls) == 1:
            raise OSError("planted")
        return found

    return failing


@pytest.mark.parametrize("shared_uri", ["lite"], indirect=True)
def test_a_backfill_whose_job_failed_at_the_index_continues(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, there = both(path)
    monkeypatch.setattr(milvus, "finish", failing_once(milvus.finish))
    with pytest.raises(Exception, match="planted"):
        backfill(there)
    report = backfill(there)
    assert steps_of(report) == ["verify"], "no row was missing, so this process completes the index"
    assert (report.chunks.embedded, report.chunks.loaded) == (0, 0)
    assert (report.verify.found, report.verify.recall_at_10) == (ROWS, 1.0)
    check_served(there)


@pytest.mark.parametrize("shared_uri", ["lite"], indirect=True)
def test_a_sync_whose_job_failed_is_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, there = both(path)
    backfill(load_config(path, [*LOCAL, "name=omega"]))
    write_jsonl(path.parent / "corpus" / "0.jsonl", items(5, 15, other=500))
    monkeypatch.setattr(Ledger, "acknowledge", failing_once(Ledger.acknowledge))
    with pytest.raises(Exception, match="planted"):
        sync(there)
    write_jsonl(path.parent / "corpus" / "1.jsonl", items(15, 20))  # the next run has another snapshot
    report = sync(there)
    assert steps_of(report) == ["embed", LOAD_AND_VERIFY, LOAD_AND_VERIFY]
    assert report.verify.found == ROWS - 15
    check_served(there)


def test_a_worker_is_killed_while_it_builds_the_index(
    path_of_proxy: Path, job_service: JobService, proxy: CountingProxy, lite_uri: str
) -> None:
    config = load_config(path_of_proxy)

    def kill() -> None:
        del proxy.before["CreateIndex"]
        for process in workers():
            process.kill()
            process.wait()

    proxy.before["CreateIndex"] = kill
    [job] = load(config, rebuild=True, wait=False).remote_jobs
    assert job.step == LOAD_AND_VERIFY
    until(lambda: not proxy.before, "the build of an index")
    # This job server waits for a worker without end: a person ends the job.
    job_service[0].Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job.id))
    with pytest.raises(JobEndedError, match=rf"{job.id} .* left running for its step load and verify, ended as CANC"):
        load(config, rebuild=True)
    report = load(load_config(path_of_proxy, HERE), rebuild=True)
    assert (report.remote_jobs, report.chunks.loaded) == ([], 0)
    assert (report.verify.found, report.verify.recall_at_10, report.verify.published) == (ROWS, 1.0, True)
    check_served(load_config(path_of_proxy, [f"collection.uri={lite_uri}"]))


def test_the_launcher_is_killed_and_the_next_run_uses_what_its_job_found(
    path_of_proxy: Path, job_service: JobService, proxy: CountingProxy, lite_uri: str
) -> None:
    reached, killed = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        assert killed.wait(60)

    proxy.before["CreateIndex"] = hold
    command = [sys.executable, "-m", "vecbeam", "load", str(path_of_proxy), "--rebuild", "--quiet"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as launcher:
        assert reached.wait(60)
        launcher.kill()
    killed.set()
    del proxy.before["CreateIndex"]
    progress = Notes()
    report = load(load_config(path_of_proxy, THREADS), progress, rebuild=True)
    [used] = [note for note in progress.notes if note.startswith("using the results of the portable job ")]
    assert state(job_service[0], used.partition(" job ")[2].split()[0]) == "DONE"
    assert (report.remote_jobs, report.chunks.loaded) == ([], 0)
    assert (report.verify.found, report.verify.recall_at_10, report.verify.published) == (ROWS, 1.0, True)
    check_served(load_config(path_of_proxy, [f"collection.uri={lite_uri}"]))


@pytest.mark.parametrize("shared_uri", ["lite"], indirect=True)
def test_a_sync_that_does_not_wait_goes_on_with_the_findings_of_its_job(path: Path, job_service: JobService) -> None:
    _, there = both(path)
    backfill(load_config(path, [*LOCAL, "name=omega"]))
    write_jsonl(path.parent / "corpus" / "0.jsonl", items(5, 15, other=500))
    steps: list[str] = []
    for _ in range(5):
        report = sync(there, wait=False)
        left = [job for job in report.remote_jobs if job.left]
        steps += [job.step for job in left]
        for job in left:
            until(lambda job=job: state(job_service[0], job.id) == "DONE", "the end of the job")  # type: ignore[misc]
        if not left:
            break
    assert steps == ["embed", LOAD_AND_VERIFY]
    assert (report.remote_jobs, report.verify.found) == ([], ROWS - 5)
    check_served(there)


def test_an_unfinished_load_of_few_parts_needs_no_job_to_load(
    tmp_path: Path, job_service: JobService, lite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of a large collection is small, and its comparison is not."""
    path = write(tmp_path, lite_uri, job_service[1])
    try:
        monkeypatch.setattr(Ledger, "acknowledge", failing_once(Ledger.acknowledge))
        with pytest.raises(Exception, match="planted"):
            backfill(load_config(path, LOCAL))
        config = load_config(path, THREADS)
        [space] = [found.parent.name for found in (Path(config.checkpoint) / config.name).glob("*/space.json")]
        snapshot = Checkpoint(config.checkpoint, config.name, space).current_snapshot()
        assert snapshot is not None
        [unfinished] = (Path(config.checkpoint) / config.name).glob("loads/*")
        acknowledged = {file.stem for file in unfinished.iterdir()}
        waiting = snapshot.bytes_of(set(snapshot.part_names) - acknowledged)
        assert 0 < waiting < snapshot.total("bytes")
        report = backfill(load_config(path, [*THREADS, f"runner.local_below={waiting + 1}"]))
        assert steps_of(report) == ["verify"]
        check_served(config)
    finally:
        empty(lite_uri)
