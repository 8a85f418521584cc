"""Comparing and embedding are one job on other machines, which embeds what one machine embeds, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import empty
from corpora import configure, text, write_jsonl
from job_server_here import THREADS, JobService, runner_of, state, steps_of, until
from models import save_model
from store_proxy import proxied

from pipelines.backfill import backfill
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.sync import sync
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, CorpusError, GateError
from transforms.checkpoint import Checkpoint

LOCAL = ["runner={name: local}", "name=here"]


@pytest.fixture
def path(tmp_path: Path, job_service: JobService, lite_uri: str) -> Iterator[Path]:
    """60 items in three files, whose shards are several batches each."""
    for file in range(3):
        items = [{"id": f"{file}-{number}", "text": text(20 * file + number)} for number in range(20)]
        write_jsonl(tmp_path / "corpus" / f"{file}.jsonl", items)
    configure(
        tmp_path,
        corpus={"paths": [str(tmp_path / "corpus" / "*")]},
        collection={"uri": lite_uri},
        batch_rows=8,
        checkpoint=str(tmp_path / "checkpoint"),
        runner=runner_of(job_service[1], tmp_path),
    )
    yield tmp_path / "vecbeam.yaml"
    empty(lite_uri)


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
    assert steps_of(by_jobs) == ["embed", "load and verify"]
    assert (by_jobs.items, by_jobs.chunks) == (locally.items, locally.chunks)
    assert (by_jobs.verify, by_jobs.plan) == (locally.verify, locally.plan)
    assert parts(there) == parts(here)
    runs = Path(there.checkpoint) / there.name / "runs"
    assert not [file for file in runs.glob("*/**/*") if file.is_file() and file.name != "report.json"]
    again = backfill(load_config(path, [*THREADS, "runner.local_below=1 GB"]))
    assert (steps_of(again), again.chunks.embedded) == ([], 0)


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
    assert steps_of(errors[1].report) == ["embed"]


def test_items_that_are_left_out_are_those_of_one_machine(path: Path) -> None:
    add_duplicates(path)
    changes = ["corpus.on_duplicate=last"]
    here, there = load_config(path, [*LOCAL, *changes]), load_config(path, [*THREADS, *changes])
    locally, by_jobs = backfill(here), backfill(there)
    assert steps_of(by_jobs) == ["embed", "embed", "load and verify"], "the first one embeds nothing"
    assert (by_jobs.items, by_jobs.chunks, by_jobs.rejects) == (locally.items, locally.chunks, {"DuplicateId": 3})
    assert by_jobs.chunks.embedded == 61
    assert parts(there) == parts(here)


def test_a_field_that_no_record_has_is_refused_as_on_one_machine(path: Path) -> None:
    for options in (LOCAL, THREADS):
        config = load_config(path, [*options, "corpus.content=[body]"])
        with pytest.raises(ConfigurationError, match=r"corpus.content: no record has 'body'; they have id, text"):
            backfill(config)
        assert not list(Path(config.checkpoint).glob(f"{config.name}/*/parts/*"))


def changed(path: Path) -> None:
    """Changes, adds, moves and deletes items of one of the three files."""
    items = [{"id": f"1-{number}", "text": text(500 + number)} for number in range(3, 24)]
    items.append({"id": "moved", "text": text(22)})
    write_jsonl(path.parent / "corpus" / "1.jsonl", items)


def backfilled(path: Path, *options: str) -> tuple[Config, Config]:
    """The configurations of two collections of the corpus, both filled by this process: one machine, and many."""
    found = load_config(path, [*LOCAL, *options]), load_config(path, [*THREADS, *options])
    for config in found:
        backfill(config.model_copy(update={"runner": found[0].runner}))
    return found


def names(config: Config) -> set[str]:
    """The parts that there are, of any snapshot or none."""
    return {file.name for file in Path(config.checkpoint).glob(f"{config.name}/*/parts/*")}


def test_a_sync_compares_and_embeds_in_one_job(path: Path) -> None:
    here, there = backfilled(path)
    changed(path)
    planned = plan(there)
    locally, by_jobs = sync(here), sync(there)
    assert planned.jobs[0] == steps_of(by_jobs)[0] == "embed"
    assert steps_of(by_jobs).count("embed") == 1
    assert "survey" not in [*planned.jobs, *steps_of(by_jobs)]
    assert (by_jobs.items, by_jobs.chunks) == (locally.items, locally.chunks)
    assert (by_jobs.items.changed, by_jobs.items.new, by_jobs.items.moved, by_jobs.items.deleted) == (17, 4, 1, 2)
    assert by_jobs.plan == locally.plan
    assert parts(there) == parts(here)


def test_a_sync_that_deletes_too_much_embeds_nothing(path: Path) -> None:
    [_, there] = backfilled(path, "corpus.max_deleted=0.1")
    before = names(there)
    write_jsonl(path.parent / "corpus" / "1.jsonl", [{"id": "1-0", "text": "changed"}])
    with pytest.raises(GateError, match="19 of 60 items are no longer in the corpus") as refused:
        sync(there)
    assert (steps_of(refused.value.report), names(there)) == (["embed"], before)
    allowed = sync(there, allow_deletes=True)
    assert (steps_of(allowed)[0], allowed.items.deleted, allowed.items.changed) == ("embed", 19, 1)


def test_an_id_that_an_unchanged_file_has_too_makes_another_job(path: Path) -> None:
    here, there = backfilled(path, "corpus.on_duplicate=first")
    items = [{"id": f"1-{number}", "text": text(20 + number)} for number in range(20)]
    write_jsonl(path.parent / "corpus" / "1.jsonl", [*items, {"id": "2-5", "text": "in another file too"}])
    locally, by_jobs = sync(here), sync(there)
    assert steps_of(by_jobs)[:3] == ["embed", "embed", "embed"], "files of the id are read, then one item is left out"
    assert (by_jobs.items, by_jobs.rejects) == (locally.items, {"DuplicateId": 1})
    assert parts(there) == parts(here)


def test_workers_with_an_accelerator_are_in_the_job_that_compares(path: Path) -> None:
    here, there = load_config(path, LOCAL), load_config(path, [*THREADS, "encoder.accelerator=type:nvidia-l4;count:1"])
    backfill(here)
    by_jobs = backfill(there)
    assert steps_of(by_jobs)[0] == "embed"
    assert steps_of(by_jobs).count("embed") == 1
    assert parts(there) == parts(here)
    assert not list(Path(there.checkpoint).glob(f"{there.name}/runs/*/chunks"))


def test_a_smaller_corpus_for_another_encoder_is_refused_before_it_is_embedded(path: Path) -> None:
    [_, there] = backfilled(path)
    for file in (1, 2):
        (path.parent / "corpus" / f"{file}.jsonl").unlink()
    other = load_config(path, [*THREADS, "encoder.dimensions=16"])
    before = names(there)
    with pytest.raises(GateError, match="40 of 60 items") as refused:
        reindex(other)
    assert (steps_of(refused.value.report), names(there)) == (["embed"], before)


def test_a_sync_that_nobody_waits_for_continues_after_its_job(path: Path, job_service: JobService) -> None:
    here, there = backfilled(path)
    changed(path)
    locally = sync(here)
    [left] = sync(there, wait=False).remote_jobs
    assert (left.step, left.left) == ("embed", True)
    until(lambda: state(job_service[0], left.id) == "DONE", "the end of the job")
    later = sync(load_config(path, [*THREADS, "runner.local_below=1 GB"]))
    assert (steps_of(later), later.items) == ([], locally.items)
    assert parts(there) == parts(here)


def test_int8_takes_its_ranges_from_the_same_texts_as_on_one_machine(
    path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = save_model(tmp_path_factory.mktemp("bert"))
    files = path.parent / "files"
    files.mkdir()
    for number in range(12):  # each is an item, whose id needs no comparison
        (files / f"{number}.txt").write_text(text(number))
    changes = [f"corpus.paths=['{files}/*.txt']", f"encoder={{model: {model}, precision: int8}}"]
    mounted = f"runner.mounted=[{path.parent}, {model}]"
    here, there = load_config(path, [*LOCAL, *changes]), load_config(path, [*THREADS, *changes, mounted])
    locally, by_jobs = backfill(here), backfill(there)
    assert steps_of(by_jobs)[0] == "embed"
    assert steps_of(by_jobs).count("embed") == 1
    [ours, theirs] = (next(Path(one.checkpoint).glob(f"{one.name}/*/int8-sample.parquet")) for one in (here, there))
    assert sorted(pq.read_table(ours).column("text").to_pylist()) == sorted(map(text, range(12)))
    assert pq.read_table(theirs).equals(pq.read_table(ours))
    assert by_jobs.loss == locally.loss
    assert by_jobs.loss is not None
    assert parts(there) == parts(here)


def test_a_plan_for_other_machines_only_reads_the_store(
    tmp_path: Path, s3_endpoint: str, s3_bucket: tuple[Any, str], lite_uri: str
) -> None:
    """So that an account which can't write may plan; with --here whatever there is to read, and no job is started."""
    client, bucket = s3_bucket
    lines = [json.dumps({"id": f"item-{number}", "text": text(number)}) for number in range(60)]
    client.put_object(Bucket=bucket, Key="corpus/a.jsonl", Body="\n".join(lines))
    with proxied(s3_endpoint) as proxy:
        keys: dict[str, Any] = {
            "corpus": {"paths": [f"s3://{bucket}/corpus/*"]},
            "checkpoint": f"s3://{bucket}/checkpoint",
            "collection": {"uri": lite_uri},
        }
        local = {"name": "local", "s3_endpoint_url": proxy.address}
        sync(configure(tmp_path, **keys, runner=local))
        client.put_object(Bucket=bucket, Key="corpus/b.jsonl", Body=json.dumps({"id": "new", "text": "new"}))
        for local_below, here, jobs in (("1 MB", False, []), (0, True, ["embed"])):
            # Nobody answers there.
            remote = {**local, "name": "portable", "job_endpoint": "127.0.0.1:9", "local_below": local_below}
            proxy.requests.clear()
            found = plan(configure(tmp_path, **keys, runner=remote), here=here)
            assert (found.action, found.items.new, found.jobs[:1]) == ("sync", 1, jobs)
            assert {method for method, _ in proxy.requests} <= {"GET", "HEAD"}
            assert proxy.count("GET", "corpus/b.jsonl")
    empty(lite_uri)
