"""How many parts are written at once, on threads and worker processes, counted by a proxy before a real server."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from collection_data import configuration
from conftest import empty
from corpora import configure, text, write_jsonl
from grpc_proxy import UPSERT, CountingProxy, counting
from milvus_server import Server

from pipelines.backfill import backfill
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import CollectionError, ConfigurationError
from transforms import milvus
from transforms.load.writers import DealToWriters, writing

PARTS, ROWS = 15, 16
RUNNER = {"name": "local", "direct_num_workers": 12, "direct_running_mode": "multi_threading"}


@pytest.fixture
def proxy(milvus_server: Server) -> Iterator[CountingProxy]:
    empty(milvus_server.uri)
    with counting(milvus_server.uri, hold_s=0.3) as opened:
        yield opened
    empty(milvus_server.uri)


def write(folder: Path, word: str, parts: int = PARTS) -> None:
    """Items that become some parts of `ROWS` rows each."""
    records = [{"id": f"item-{number:03d}", "text": f"{word} {text(number)}"} for number in range(parts * ROWS)]
    write_jsonl(folder / "corpus" / "a.jsonl", records)


def config_of(folder: Path, uri: str, **collection: Any) -> Config:
    values = {"uri": uri, "index": {"type": "FLAT"}, "retry_s": 30.0, **collection}
    return configure(folder, collection=values, runner=RUNNER, batch_rows=ROWS)


@pytest.mark.server
def test_no_more_parts_at_once_than_writers(tmp_path: Path, proxy: CountingProxy) -> None:
    write(tmp_path, "first")
    config = config_of(tmp_path, proxy.uri, writers=3)
    report = backfill(config)
    assert (report.chunks.loaded, report.verify.found, report.verify.published) == (PARTS * ROWS, PARTS * ROWS, True)
    # Twelve threads work; so without the bound there would be more than three, and one at a time would be too few.
    assert proxy.most[UPSERT] == 3
    assert proxy.calls[UPSERT] == PARTS

    proxy.most.clear()
    write(tmp_path, "second", PARTS - 1)
    report = sync(config, allow_deletes=True)
    assert (report.items.changed, report.items.deleted) == ((PARTS - 1) * ROWS, ROWS)
    assert proxy.most[UPSERT] == 3
    assert proxy.most["Delete"] <= 3
    checked = verify(config)  # row by row, against the checkpoint
    assert (checked.verify.found, checked.verify.missing, checked.verify.unexpected) == ((PARTS - 1) * ROWS, 0, 0)


@pytest.mark.server
def test_answers_that_ask_to_slow_down_are_counted_in_the_report(tmp_path: Path, proxy: CountingProxy) -> None:
    proxy.hold_s = 0.0
    write(tmp_path, "first", 4)
    config = config_of(tmp_path, proxy.uri)
    proxy.answers += [(8, "rate limit exceeded[rate=1]"), (9, "quota exceeded[reason=memory quota exceeded]")]
    proxy.answers += [(4, "too many concurrent requests, queue is full")]
    proxy.unavailable["CreateIndex"] = 2  # a call of the launcher, which no pipeline counts
    report = backfill(config)
    assert (report.verify.found, report.verify.published) == (4 * ROWS, True)
    assert (report.throttled, report.retries) == (3, 5)

    write(tmp_path, "second", 4)
    proxy.calls.clear()
    proxy.answers += [(9, "quota exceeded[reason=disk quota exceeded, please allocate more resources]")] * 4
    with pytest.raises(CollectionError, match=r"takes no writes: upsert .*disk quota exceeded.*free some of its disk"):
        sync(config)
    assert proxy.calls[UPSERT] <= 4  # no writer sent a message again
    proxy.answers.clear()
    sync(config)
    proxy.answers += [(8, "rate limit exceeded[rate=1]")] * 50
    write(tmp_path, "third", 4)
    impatient = config_of(tmp_path, proxy.uri, writers=2).collection.model_copy(update={"retry_s": 0.5})
    with pytest.raises(CollectionError, match=r"asks to slow down after 0.5 s.*collection.writers \(now 2\)"):
        sync(config.model_copy(update={"collection": impatient}))


def test_one_writer_to_lite_that_is_served_over_tcp(tmp_path: Path) -> None:
    """A configuration can't tell it from a server: the connection does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused_port = free.getsockname()[1]
    serve = "from milvus_lite.cmdline import main; main()"
    command = [sys.executable, "-c", serve, "server", "--data-dir", str(tmp_path / "served")]
    (tmp_path / "served").mkdir()
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(unused_port)])
    try:
        write(tmp_path, "first", 4)
        with counting(f"http://127.0.0.1:{unused_port}", hold_s=0.1) as proxy:
            config = config_of(tmp_path, proxy.uri)
            wait_for(config)
            report = backfill(config)
            assert (report.verify.found, report.verify.published) == (4 * ROWS, True)
            assert (proxy.most[UPSERT], proxy.calls[UPSERT]) == (1, 4)
            with pytest.raises(CollectionError, match=r"collection.writers: 4: .* takes one writer.*remove"):
                backfill(config_of(tmp_path, proxy.uri, writers=4))
    finally:
        process.terminate()
        process.wait()


def wait_for(config: Config) -> None:
    for attempt in range(20):
        try:
            milvus.connect(config.collection).close()
            return
        except CollectionError:
            if attempt == 19:
                raise


def test_a_hundred_workers_get_at_most_as_many_groups_as_there_are_writers() -> None:
    options = PipelineOptions(direct_num_workers=20, direct_running_mode="multi_threading")
    with beam.Pipeline(runner="FnApiRunner", options=options) as pipeline:
        groups = (
            pipeline
            | beam.Create([f"part-{number}" for number in range(100)])
            | beam.Reshuffle()
            | DealToWriters(8)
            | beam.MapTuple(lambda writer, parts: (writer, sorted(parts)))
        )

        def check(found: list[tuple[int, list[str]]]) -> None:
            assert len(found) == len({writer for writer, _ in found}) <= 8
            assert sorted(part for _, parts in found for part in parts) == sorted(f"part-{n}" for n in range(100))

        assert_that(groups, check)


def test_threads_of_a_process_share_its_writers() -> None:
    config = configuration("http://milvus.example:19530", writers=2)
    under_way, most, lock = [0], [0], threading.Lock()
    go = threading.Barrier(2, timeout=20)

    def write_one(meets: bool) -> None:
        with writing(config):
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
            if meets:
                go.wait()  # two are inside at once
            with lock:
                under_way[0] -= 1

    threads = [threading.Thread(target=write_one, args=(number < 2,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [2]


@pytest.mark.parametrize(
    ("collection", "said"),
    [
        ({"uri": "http://milvus:19530", "writers": 0}, "collection.writers: 0 is not a number of writers from 1 to"),
        ({"uri": "http://milvus:19530", "writers": -1}, "collection.writers: -1 is not a number"),
        ({"uri": "http://milvus:19530", "writers": 10_000}, "10000 is not a number of writers from 1 to 1024"),
        ({"uri": "http://milvus:19530", "writers": "many"}, "collection.writers"),
        ({"uri": "./milvus.db", "writers": 2}, "writers is 2, and Milvus Lite takes one writer: remove it"),
    ],
)
def test_writers_that_are_refused(tmp_path: Path, collection: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        configure(tmp_path, collection=collection)
    assert said in str(refused.value)


def test_writers_by_default(tmp_path: Path) -> None:
    assert configure(tmp_path).collection.most_writers == 1
    assert configure(tmp_path, collection={"uri": "http://milvus:19530"}).collection.most_writers == 8
    set_by_key = load_config(tmp_path / "vecbeam.yaml", ["collection.writers=20"])
    assert set_by_key.collection.most_writers == 20
