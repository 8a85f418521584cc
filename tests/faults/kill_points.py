"""Runs `backfill` with a SIGKILL at each of many points, then again without, and says what came of it.

    python kill_points.py FOLDER [URI]

With the URI of a Milvus server it does so for some points there, instead of Milvus Lite. Prints a JSON line for the
undisturbed run and one for each point. Everything heavy is imported once; each run is a fork of this process, which
starts no thread and no server of its own, and as many run at once as there are cores. The
product has no hooks: functions are replaced here.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

NAME = "killed"
HANGS_S = 180.0
HEAVY = (
    *("pipelines.cli", "transforms.embed.stage", "pymilvus", "milvus_lite.server_manager", "typer.main"),
    *("apache_beam.runners.portability.fn_api_runner.fn_runner", "milvus_lite.adapter.grpc.server"),
    *("semantic_text_splitter", "pyarrow.dataset", "scipy.sparse", "transforms.encoders.fake"),
)


class Point(NamedTuple):
    """Kill at the `call`-th call of `target`: before it, after it, or some milliseconds into it."""

    target: str
    call: int
    when: str

    def __str__(self) -> str:
        return f"{self.when} call {self.call} of {self.target}"


def spread(target: str, calls: tuple[int, ...], *whens: str) -> list[Point]:
    return [Point(target, call, when) for call in calls for when in whens]


def chosen(points: Sequence[Point]) -> list[Point]:
    """Half of the points, as many before as after a call; all of them in `make test-campaign`."""
    if os.environ.get("VECBEAM_KILL_POINTS") == "all":
        return list(points)
    return [point for number, point in enumerate(points) if number % 4 in (0, 3)]


CLIENT = "pymilvus.MilvusClient"
# Between the end of one of these and the beginning of the next nothing is written, so one side of most is enough.
POINTS = [
    *spread("transforms.diff.find_changes.compare", (1,), "before", "after"),
    *spread("transforms.chunk.text.TextChunker.chunk", (1, 4, 7), "before"),
    *spread("transforms.encoders.fake.FakeEncoder.encode", (1, 3, 5, 8), "after"),
    *spread("os.replace", (2, 4, 7, 9), "before", "after"),
    *spread("transforms.support.storage.filesystem.write_atomic", (1, 3, 6, 10, 12, 14, 16), "after"),
    *spread("transforms.checkpoint.Checkpoint.write_part", (1, 8), "after"),
    *spread("transforms.checkpoint.Checkpoint.write_snapshot", (1,), "before", "after"),
    *spread("transforms.milvus.create", (1,), "before", "after"),
    *spread("transforms.milvus.upsert", (1, 3, 6), "before"),
    *spread(f"{CLIENT}.upsert", (2, 5), "before", "after"),
    *spread("transforms.load.upsert_parts.Ledger.acknowledge", (1, 4, 8), "before", "after"),
    *spread(f"{CLIENT}.flush", (1,), "before", "after"),
    *spread(f"{CLIENT}.create_index", (1,), "before", "during", "after"),
    *spread(f"{CLIENT}.load_collection", (1,), "after"),
    *spread("transforms.milvus.verify_rows", (1,), "after"),
    *spread("transforms.milvus.measure_recall", (1,), "after"),
    *spread("transforms.milvus.set_ready", (1,), "before", "after"),
    *spread("transforms.milvus.publish", (1,), "before", "after"),
    *spread("transforms.load.upsert_parts.Ledger.close", (1,), "after"),
]

SERVER_POINTS = [
    *spread("transforms.checkpoint.Checkpoint.write_snapshot", (1,), "after"),
    *spread("transforms.milvus.create", (1,), "after"),
    *spread(f"{CLIENT}.upsert", (2,), "after"),
    *spread("transforms.load.upsert_parts.Ledger.acknowledge", (4,), "before"),
    *spread(f"{CLIENT}.flush", (1,), "after"),
    *spread(f"{CLIENT}.create_index", (1,), "during", "after"),
    *spread("transforms.milvus.set_ready", (1,), "before"),
    *spread("transforms.milvus.publish", (1,), "before", "after"),
]


def write_corpus(folder: Path) -> None:
    """60 good items in two files, some of several chunks, and four bad records among them."""
    words = "ask bee cat dog elk fox gnu hen ibis jay kite lynx mole newt owl pig quail ram seal toad".split()  # noqa: SIM905
    for number, file in enumerate(("a.jsonl", "b.jsonl")):
        lines = []
        for item in range(30):
            count = 40 if item % 7 == 0 else 5
            text = " ".join(words[(item * 3 + number + place * 5) % len(words)] for place in range(count)) + f" {item}"
            lines.append(json.dumps({"id": f"{number}-{item}", "text": text, "kind": words[item % 4]}))
            if item in (5, 20):
                lines.append('{"id": "bad", "text": ')
        (folder / file).write_text("\n".join(lines) + "\n")


def write_configuration(folder: Path, name: str = NAME, uri: str = "./milvus.db") -> Path:
    path = folder / "vecbeam.yaml"
    path.write_text(
        f"name: {name}\n"
        f"corpus: {{paths: ['{folder.parent}/corpus/*.jsonl'], metadata: {{kind: string}}, shard_bytes: 2048}}\n"
        "chunk: {max_tokens: 16, overlap_tokens: 4}\n"
        "encoder: {model: fake, dimensions: 16}\n"
        "batch_rows: 8\n"
        "checkpoint: checkpoint\n"
        f"collection: {{uri: '{uri}', index: {{type: HNSW, M: 8, efConstruction: 64}}, message_rows: 10}}\n"
        "verify: {max_rejected: 0.5}\n"
    )
    return path


def replace(target: str, wrap: Callable[[Any], Any]) -> None:
    module, *attributes = target.split(".")
    place: Any = importlib.import_module(module)
    for attribute in attributes[:-1]:
        module += f".{attribute}"
        place = getattr(place, attribute) if hasattr(place, attribute) else importlib.import_module(module)
    setattr(place, attributes[-1], wrap(getattr(place, attributes[-1])))


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def killing(point: Point) -> Callable[[Any], Any]:
    calls = [0]

    def wrap(function: Any) -> Any:
        def killed(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] != point.call:
                return function(*args, **kwargs)
            if point.when == "before":
                die()
            if point.when == "during":
                threading.Timer(0.005, die).start()
            result = function(*args, **kwargs)
            die()
            return result

        return killed

    return wrap


def counting(log: Path) -> Callable[[Any], Any]:
    """Writes a line for each call, in a way that outlives SIGKILL."""

    def wrap(function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with open(log, "ab", buffering=0) as stream:
                stream.write(b"x\n")
            return function(*args, **kwargs)

        return counted

    return wrap


def in_fork(work: Callable[[], int]) -> int:
    """Runs a function in a fork; returns its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 70
        # A run that hangs says where, and fails its point alone.
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        try:
            code = work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def backfill(folder: Path, point: Point | None, log: Path) -> Callable[[], int]:
    def work() -> int:
        os.dup2(os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        faulthandler.dump_traceback_later(HANGS_S, exit=True, file=2)
        replace("transforms.encoders.fake.FakeEncoder.encode", counting(log))
        if point is not None:
            replace(point.target, killing(point))
        from pipelines.cli import app

        try:
            app(["backfill", str(folder / "vecbeam.yaml")])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return work


def describe(folder: Path, output: Path) -> Callable[[], int]:
    """What a user finds: rows with vectors in the collection and in the parts, and the checkpoint's files."""

    def work() -> int:
        import pyarrow.parquet as pq

        from schemas.config.loader import load_config
        from transforms import milvus

        config = load_config(folder / "vecbeam.yaml")
        name = config.name
        root = folder / "checkpoint" / name
        with milvus.connected(config.collection) as connection:
            collections = sorted(
                found for found in connection.client.list_collections() if found.startswith(f"{name}_")
            )
            connection.client.load_collection(milvus.served(connection, name))
            rows = connection.client.query(
                name, filter="", limit=16384, output_fields=["id", "content_hash", "vector", "kind"]
            )
            if not config.collection.is_lite:  # other points follow on the same server
                connection.client.drop_alias(name)
                for collection in collections:
                    connection.client.drop_collection(collection)
        parts = [row for file in sorted(root.glob("*/parts/*")) for row in pq.read_table(file).to_pylist()]
        files = sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file())
        found = {
            "collections": [collection.removeprefix(name) for collection in collections],
            "rows": len(rows),
            "collection_digest": digest(rows),
            "parts_digest": digest(parts),
            "files": [file for file in files if not file.startswith("runs/")],
        }
        output.write_text(json.dumps(found))
        return 0

    return work


def digest(rows: list[dict[str, Any]]) -> str:
    lines = sorted(json.dumps([r["id"], r["content_hash"], [float(v) for v in r["vector"]], r["kind"]]) for r in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def run(folder: Path, point: Point | None, name: str = NAME, uri: str = "./milvus.db") -> dict[str, Any]:
    folder.mkdir()
    write_configuration(folder, name, uri)
    log = folder / "encoded.txt"
    result: dict[str, Any] = {"point": str(point)}
    result["first"] = in_fork(backfill(folder, point, log))
    result["second"] = in_fork(backfill(folder, None, log)) if point else result["first"]
    result["encoded"] = log.read_text().count("x") if log.exists() else 0
    result["described"] = in_fork(describe(folder, folder / "found.json"))
    if (folder / "found.json").exists():
        result |= json.loads((folder / "found.json").read_text())
    result["output"] = (folder / "output.txt").read_text()[-6000:]
    shutil.rmtree(folder)
    return result


def print_results(jobs: Sequence[Callable[[], dict[str, Any]]], folder: Path) -> None:
    """Runs jobs that have nothing to do with each other, as many at once as there are cores, and prints their results.

    Args:
        folder: where the forks leave them.
    """
    workers = min(len(jobs), os.cpu_count() or 1)

    def work(worker: int) -> None:
        for number in range(worker, len(jobs), workers):
            (folder / f"result-{number}.json").write_text(json.dumps(jobs[number]()))

    children = []
    for worker in range(workers):
        child = os.fork()
        if child == 0:
            code = 70
            try:
                work(worker)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    for number in range(len(jobs)):
        if (result := folder / f"result-{number}.json").exists():
            print(result.read_text(), flush=True)
    if any(ended):
        sys.exit(f"workers ended with {ended}")


def import_heavy() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would not have the other threads"


def main(folder: Path, uri: str = "") -> None:
    import_heavy()
    (folder / "corpus").mkdir(parents=True)
    write_corpus(folder / "corpus")
    jobs = []
    for number, point in enumerate([None, *(SERVER_POINTS if uri else chosen(POINTS))]):
        place = (f"{NAME}_{number}", uri) if uri else ()
        jobs.append(partial(run, folder / f"point-{number}", point, *place))
    print_results(jobs, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
