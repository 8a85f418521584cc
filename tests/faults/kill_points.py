"""Runs `backfill` with a SIGKILL at each of many points, then again without, and says what came of it.

    python kill_points.py FOLDER [WORLD [URI]]

WORLD is one of `worlds.WORLDS`, by default texts. With the URI of a Milvus server it does so for some points there,
instead of Milvus Lite. Prints a JSON line for the undisturbed run and one for each point. Everything heavy is imported
once; each run is a fork of this process, which starts no thread and no server of its own, and as many run at once as
there are cores. The product has no hooks: functions are replaced here.
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

import yaml
from worlds import CHUNK, ENCODE, WORLDS, World

from schemas.config import Config
from transforms.encoders.engines.torch.torchvision_operators import make_importable

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


def chosen(points: Sequence[Point], world: str = "texts") -> list[Point]:
    """Half of the points, as many before as after a call, and all of them in `make test-campaign`.

    A few of them over other corpora than texts.
    """
    if world != "texts":
        return list(points[3::16])
    if os.environ.get("VECBEAM_KILL_POINTS") == "all":
        return list(points)
    return [point for number, point in enumerate(points) if number % 4 in (0, 3)]


CLIENT = "pymilvus.MilvusClient"
# Between the end of one of these and the beginning of the next nothing is written, so one side of most is enough.
POINTS = [
    *spread("transforms.diff.find_changes.compare", (1,), "before", "after"),
    *spread(CHUNK, (1, 4, 7), "before"),
    *spread(ENCODE, (1, 3, 5, 8), "after"),
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


def write_configuration(folder: Path, world: World, name: str = NAME, uri: str = "./milvus.db") -> Path:
    values = {
        "name": name,
        "batch_rows": 8,
        "checkpoint": "checkpoint",
        "collection": {"uri": uri, "index": {"type": "HNSW", "M": 8, "efConstruction": 64}, "message_rows": 10},
        "verify": {"max_rejected": 0.5},
        **world.configuration,
    }
    path = folder / "vecbeam.yaml"
    path.write_text(yaml.safe_dump(values).replace("{folder}", f"{folder.parent}/corpus"))
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


def execute(folder: Path, world: World, words: Sequence[str], point: Point | None, log: Path) -> Callable[[], int]:
    """A command over the configuration in a folder, killed at a point; counts in `log` how often it encodes."""

    def work() -> int:
        os.dup2(os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        faulthandler.dump_traceback_later(HANGS_S, exit=True, file=2)
        replace(world.instead.get(ENCODE, ENCODE), counting(log))
        if point is not None:
            replace(world.instead.get(point.target, point.target), killing(point))
        from pipelines.cli import app

        command, *options = words
        try:
            app([command, str(folder / "vecbeam.yaml"), *options])
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
            rows = connection.client.query(name, filter="", limit=16384, output_fields=columns(config))
            if not config.collection.is_lite:  # other points follow on the same server
                connection.client.drop_alias(name)
                for collection in collections:
                    connection.client.drop_collection(collection)
        parts = [row for file in sorted(root.glob("*/parts/*")) for row in pq.read_table(file).to_pylist()]
        files = sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file())
        found = {
            "collections": [collection.removeprefix(name) for collection in collections],
            "rows": len(rows),
            "collection_digest": digest(rows, columns(config)),
            "parts_digest": digest(parts, columns(config)),
            "files": [file for file in files if not file.startswith("runs/")],
        }
        output.write_text(json.dumps(found))
        return 0

    return work


def columns(config: Config) -> list[str]:
    return ["id", "content_hash", "kind", *config.vectors]


def digest(rows: list[dict[str, Any]], names: list[str]) -> str:
    lines = sorted(json.dumps([plain(row[name]) for name in names]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def plain(value: Any) -> Any:
    return value if isinstance(value, str) else [float(number) for number in value]


def run(folder: Path, world: World, point: Point | None, name: str = NAME, uri: str = "./milvus.db") -> dict[str, Any]:
    folder.mkdir()
    write_configuration(folder, world, name, uri)
    return both(folder, world, ["backfill"], point, describe)


def both(
    folder: Path,
    world: World,
    words: Sequence[str],
    point: Point | None,
    describe: Callable[[Path, Path], Callable[[], int]],
) -> dict[str, Any]:
    """Runs a command that is killed, then the same again, and describes what they leave."""
    log = folder / "encoded.txt"
    log.unlink(missing_ok=True)
    result: dict[str, Any] = {"command": words[0], "point": str(point), "encoders": world.encoders}
    result["first"] = in_fork(execute(folder, world, words, point, log))
    result["second"] = in_fork(execute(folder, world, words, None, log)) if point else result["first"]
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


def prepare(folder: Path, world: World) -> None:
    """Imports what is heavy, and writes the corpus."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: runs share the cores
    for name in (*HEAVY, *world.heavy):
        if name == "timm":
            make_importable()
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would not have the other threads"
    (folder / "corpus").mkdir(parents=True)
    assert in_fork(lambda: world.write(folder / "corpus") or 0) == 0


def main(folder: Path, named: str = "texts", uri: str = "") -> None:
    world = WORLDS[named]
    prepare(folder, world)
    jobs = []
    for number, point in enumerate([None, *(SERVER_POINTS if uri else chosen(POINTS, named))]):
        place = (f"{NAME}_{number}", uri) if uri else ()
        jobs.append(partial(run, folder / f"point-{number}", world, point, *place))
    print_results(jobs, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
