"""Runs `sync` and `reindex` with a SIGKILL at each of many points, then again without, and says what came of it.

    python kill_points_sync.py FOLDER

A backfill is made once; then the corpus is edited in every way, and each run starts from a copy of what the backfill
left. Prints a JSON line for the undisturbed run of each command and one for each point.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kill_points import (
    CLIENT,
    HANGS_S,
    NAME,
    Point,
    backfill,
    chosen,
    counting,
    digest,
    import_heavy,
    in_fork,
    killing,
    print_results,
    replace,
    spread,
    write_configuration,
    write_corpus,
)


class Command(NamedTuple):
    name: str
    arguments: tuple[str, ...]
    points: tuple[Point, ...]


SYNC = Command(
    "sync",
    (),
    (
        *spread("transforms.diff.find_changes.compare", (1, 3), "before"),
        *spread("transforms.diff.find_changes.pair_moves", (1,), "after"),
        *spread("transforms.checkpoint.Checkpoint.write_part", (1, 2), "before", "after"),
        *spread("transforms.checkpoint.Checkpoint.write_snapshot", (1,), "before", "after"),
        *spread("transforms.support.storage.filesystem.write_atomic", (2, 4, 6, 8), "after"),
        *spread("transforms.support.storage.filesystem.write_stream", (1, 2), "before", "after"),
        *spread("transforms.load.delta.settle", (1, 5), "before"),
        *spread("transforms.milvus.set_properties", (1, 2), "before", "after"),
        *spread("transforms.milvus.delete", (1, 2, 3), "before", "after"),
        *spread("transforms.milvus.upsert", (1, 2), "before", "after"),
        *spread(f"{CLIENT}.upsert", (1,), "before", "after"),
        *spread("transforms.load.upsert_parts.Ledger.acknowledge", (1, 2), "after"),
        *spread(f"{CLIENT}.flush", (1,), "after"),
        *spread("transforms.milvus.verify_rows", (1,), "after"),
        *spread("transforms.load.upsert_parts.Ledger.close", (1,), "before", "after"),
    ),
)
REINDEX = Command(
    "reindex",
    ("--set", "collection.index={type: IVF_FLAT, nlist: 4}", "--set", "chunk.max_tokens=20"),
    (
        *spread("transforms.checkpoint.Checkpoint.write_snapshot", (1,), "before", "after"),
        *spread("transforms.milvus.create", (1,), "before", "after"),
        *spread("transforms.load.upsert_parts.Ledger.acknowledge", (3,), "before", "after"),
        *spread(f"{CLIENT}.create_index", (1,), "before", "after"),
        *spread("transforms.milvus.measure_recall", (1,), "after"),
        *spread("transforms.milvus.set_ready", (1,), "after"),
        *spread("transforms.milvus.publish", (1,), "before"),
        *spread(f"{CLIENT}.alter_alias", (1,), "before", "after"),
    ),
)
COMMANDS = (SYNC, REINDEX)


def edit(corpus: Path) -> None:
    """Edits, shrinks, grows, moves, deletes and adds items."""
    first, second = ([json.loads(line) for line in read(corpus / name)] for name in ("a.jsonl", "b.jsonl"))
    first[1]["text"] = "an edited text"
    first[7]["text"] = " ".join(first[7]["text"].split()[:6])
    first[3]["text"] += " and much more of it" * 12
    first[4]["kind"] = "other"
    first[9]["id"] = "moved"
    del first[11:13]
    second.append(first.pop())
    second.insert(0, {"id": "added", "text": "a new text", "kind": "new"})
    for name, records in (("a.jsonl", first), ("b.jsonl", second)):
        (corpus / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def read(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if '"bad"' not in line]


def execute(folder: Path, command: Command, point: Point | None, log: Path) -> Callable[[], int]:
    def work() -> int:
        os.dup2(os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        faulthandler.dump_traceback_later(HANGS_S, exit=True, file=2)
        replace("transforms.encoders.fake.FakeEncoder.encode", counting(log))
        if point is not None:
            replace(point.target, killing(point))
        from pipelines.cli import app

        try:
            app([command.name, str(folder / "vecbeam.yaml"), *command.arguments])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return work


def describe(folder: Path, output: Path) -> Callable[[], int]:
    """What a user finds: rows of the served collection, live rows of the snapshot, and the files of the checkpoint."""

    def work() -> int:
        from schemas.config.loader import load_config
        from transforms import milvus
        from transforms.checkpoint import Checkpoint
        from transforms.encoders import resolve

        config = load_config(folder / "vecbeam.yaml")
        checkpoint = Checkpoint(config.checkpoint, config.name, resolve(config.encoder).space.id)
        with milvus.connected(config.collection) as connection:
            collections, served = sorted(connection.client.list_collections()), milvus.served(connection, NAME)
            connection.client.load_collection(served)
            rows = connection.client.query(
                served, filter="", limit=16384, output_fields=["id", "content_hash", "vector", "kind"]
            )
        snapshot = checkpoint.current_snapshot()
        assert snapshot is not None
        live = [row for part in snapshot.live_parts for row in checkpoint.read_live(part).to_pylist()]
        root = Path(checkpoint.root)
        files = sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file())
        found = {
            "collections": collections,
            "served": served,
            "rows": len(rows),
            "collection_digest": digest(rows),
            "live_digest": digest(live),
            "files": [file for file in files if not file.startswith("runs/")],
        }
        output.write_text(json.dumps(found))
        return 0

    return work


def run(prepared: Path, folder: Path, command: Command, point: Point | None) -> dict[str, Any]:
    shutil.copytree(prepared, folder)
    log = folder / "encoded.txt"
    log.unlink(missing_ok=True)
    result: dict[str, Any] = {"command": command.name, "point": str(point)}
    result["first"] = in_fork(execute(folder, command, point, log))
    result["second"] = in_fork(execute(folder, command, None, log)) if point else result["first"]
    result["encoded"] = log.read_text().count("x") if log.exists() else 0
    result["described"] = in_fork(describe(folder, folder / "found.json"))
    if (folder / "found.json").exists():
        result |= json.loads((folder / "found.json").read_text())
    result["output"] = (folder / "output.txt").read_text()[-6000:]
    shutil.rmtree(folder)
    return result


def main(folder: Path) -> None:
    importlib.import_module("pipelines.reindex")
    import_heavy()
    (folder / "corpus").mkdir(parents=True)
    write_corpus(folder / "corpus")
    prepared = folder / "prepared"
    prepared.mkdir()
    write_configuration(prepared)
    assert in_fork(backfill(prepared, None, prepared / "encoded.txt")) == 0, (prepared / "output.txt").read_text()
    edit(folder / "corpus")
    jobs = [
        partial(run, prepared, folder / f"{command.name}-{number}", command, point)
        for command in COMMANDS
        for number, point in enumerate((None, *chosen(command.points)))
    ]
    print_results(jobs, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
