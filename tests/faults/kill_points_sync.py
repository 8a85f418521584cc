"""Runs `sync` and `reindex` with a SIGKILL at each of many points, then again without, and says what came of it.

    python kill_points_sync.py FOLDER [WORLD]

A backfill is made once; then the corpus is edited in every way, and each run starts from a copy of what the backfill
left. Prints a JSON line for the undisturbed run of each command and one for each point.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kill_points import (
    CLIENT,
    NAME,
    Point,
    both,
    chosen,
    columns,
    digest,
    execute,
    in_fork,
    prepare,
    print_results,
    spread,
    write_configuration,
)
from worlds import WORLDS, World


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
        *spread("transforms.milvus.delete", (1, 2), "before", "after"),
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
    ("--set", "collection.index={type: IVF_FLAT, nlist: 4}"),
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


def describe(folder: Path, output: Path) -> Callable[[], int]:
    """What a user finds: rows of the served collection, live rows of the snapshot, and the files of the checkpoint."""

    def work() -> int:
        from schemas.config.loader import load_config
        from transforms import milvus
        from transforms.checkpoint import Checkpoint
        from transforms.encoders.models import Models

        config = load_config(folder / "vecbeam.yaml")
        checkpoint = Checkpoint(config.checkpoint, config.name, Models.of(config).space.id)
        with milvus.connected(config.collection) as connection:
            collections, served = sorted(connection.client.list_collections()), milvus.served(connection, NAME)
            connection.client.load_collection(served)
            rows = connection.client.query(served, filter="", limit=16384, output_fields=columns(config))
        snapshot = checkpoint.current_snapshot()
        assert snapshot is not None
        live = [row for part in snapshot.live_parts for row in checkpoint.read_live(part).to_pylist()]
        root = Path(checkpoint.root)
        files = sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file())
        found = {
            "collections": collections,
            "served": served,
            "rows": len(rows),
            "collection_digest": digest(rows, columns(config)),
            "live_digest": digest(live, columns(config)),
            "files": [file for file in files if not file.startswith("runs/")],
        }
        output.write_text(json.dumps(found))
        return 0

    return work


def run(prepared: Path, folder: Path, world: World, command: Command, point: Point | None) -> dict[str, Any]:
    shutil.copytree(prepared, folder)
    options = (*command.arguments, *(world.rechunk if command is REINDEX else ()))
    return both(folder, world, [command.name, *options], point, describe)


def main(folder: Path, named: str = "texts") -> None:
    world = WORLDS[named]
    importlib.import_module("pipelines.reindex")
    prepare(folder, world)
    prepared = folder / "prepared"
    prepared.mkdir()
    write_configuration(prepared, world)
    made = in_fork(execute(prepared, world, ["backfill"], None, prepared / "encoded.txt"))
    assert made == 0, (prepared / "output.txt").read_text()
    world.edit(folder / "corpus")
    jobs = [
        partial(run, prepared, folder / f"{command.name}-{number}", world, command, point)
        for command in COMMANDS
        for number, point in enumerate((None, *chosen(command.points, named)))
    ]
    print_results(jobs, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
