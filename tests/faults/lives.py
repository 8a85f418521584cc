"""Lives of a collection: `backfill`, `sync`, `reindex` and `gc`, each with a SIGKILL at a random moment, then again.

    python tests/faults/lives.py FOLDER --place lite --seeds 0 1 2 [--uri URI] [--checkpoint s3://BUCKET/KEY]

The corpus, and its edits before the sync, are those of `worlds`. After each command the collection, the live rows of
the checkpoint and its files are compared with those of an undisturbed life, which comes first and stays in
FOLDER/reference.json. Prints a JSON line for each command of each life. Everything heavy is imported once; each run is
a fork of this process. With `--undisturbed` nothing is killed: for a store that gives errors. With `--refusing FILE` a
store refuses everything while FILE exists: from the moment on, in place of the SIGKILL, until the command ends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from kill_points import columns, digest, execute, in_fork, prepare
from worlds import WORLDS, World

INDEX = ("--set", "collection.index={type: IVF_FLAT, nlist: 4}")
CORPORA = {"backfill": "corpus", "sync": "edited", "reindex": "edited", "gc": "edited"}
COMMANDS = tuple(CORPORA)
FAULTS = ("lost", "duplicated", "orphaned", "wrong", "failed")
"""What no life may have; of a line, all are 0 unless something is wrong."""
Found = dict[str, Any]


class Place(NamedTuple):
    """Where a life takes place.

    Attributes:
        folder: what the lives share, the corpus and the undisturbed life among it.
        uri: of the Milvus server; empty for a Milvus Lite of its own.
        checkpoint: a folder of an object store; empty for a folder of the life.
        refusing: a file; while it exists, the store refuses everything. None if commands are killed.
    """

    name: str
    folder: Path
    uri: str = ""
    checkpoint: str = ""
    refusing: Path | None = None


class Life:
    """One collection from its backfill to its gc, in a folder of its own."""

    def __init__(self, place: Place, world: World, name: str) -> None:
        self.place, self.world, self.name = place, world, name
        self.folder = place.folder / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.configure("corpus")

    def configure(self, corpus: str) -> None:
        """Writes the configuration, over one of the corpora that the lives share: rejects name their paths."""
        place, name = self.place, self.name
        index = {"type": "HNSW", "M": 8, "efConstruction": 64}
        values = {
            "name": name,
            "batch_rows": 8,
            "checkpoint": f"{place.checkpoint}/{name}" if place.checkpoint else "checkpoint",
            "collection": {"uri": place.uri or "./milvus.db", "index": index, "message_rows": 10},
            "verify": {"max_rejected": 0.5},
            **self.world.configuration,
        }
        text = yaml.safe_dump(values).replace("{folder}", str(place.folder / corpus))
        (self.folder / "vecbeam.yaml").write_text(text)

    @property
    def log(self) -> Path:
        return self.folder / "encoded.txt"

    def words(self, command: str) -> list[str]:
        """The command line, without the configuration."""
        changed = [*INDEX, *self.world.rechunk]
        options = {"reindex": changed, "gc": [*changed, "--yes", "--keep", "0"]}
        return [command, *options.get(command, [])]

    def run(self, command: str) -> int:
        """Runs a command to its end; returns its exit code."""
        return in_fork(execute(self.folder, self.world, self.words(command), None, self.log))

    def run_disturbed(self, command: str, after_s: float) -> int:
        """Runs a command with a SIGKILL after some seconds, or with a store that refuses everything from then on.

        Returns:
            How it ended, as `in_fork`.
        """
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = execute(self.folder, self.world, self.words(command), None, self.log)()
            finally:
                os._exit(code)
        time.sleep(after_s)
        if self.place.refusing is None:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.place.refusing.touch()
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.place.refusing.unlink()
        return ended

    def output(self) -> str:
        """What its commands have printed."""
        path = self.folder / "output.txt"
        return path.read_text() if path.exists() else ""

    def encoded(self) -> int:
        """How many batches went through the model since the last time; see `kill_points.counting`."""
        count = self.log.read_text().count("x") if self.log.exists() else 0
        self.log.unlink(missing_ok=True)
        return count

    def found(self) -> Found | None:
        """What a user finds, read by a process of its own; None if that fails."""
        output = self.folder / "found.json"
        output.unlink(missing_ok=True)
        in_fork(describe(self.folder, output))
        return dict(json.loads(output.read_text())) if output.exists() else None

    def end(self) -> None:
        """Removes its folder, and its collections on a server."""
        if self.place.uri:
            in_fork(lambda: drop(self.folder))
        shutil.rmtree(self.folder)


def describe(folder: Path, output: Path) -> Callable[[], int]:
    """Writes the rows of the collection, the live rows of the checkpoint, its files, and the names of collections."""

    def work() -> int:
        from pipelines.run.jobs.beam_options import prepare_filesystems
        from schemas.config.loader import load_config
        from transforms import milvus
        from transforms.checkpoint import Checkpoint
        from transforms.encoders.models import Models
        from transforms.support.storage import filesystem

        config = load_config(folder / "vecbeam.yaml")
        prepare_filesystems(config)
        checkpoint = Checkpoint(config.checkpoint, config.name, Models.of(config).space.id)
        with milvus.connected(config.collection) as connection:
            names = [name for name in connection.client.list_collections() if name.startswith(f"{config.name}_")]
            served = milvus.served(connection, config.name)
            connection.client.load_collection(served)
            rows = connection.client.query(
                served, filter='id != ""', limit=16384, output_fields=columns(config), consistency_level="Strong"
            )
            total = milvus.count(connection, served)
        snapshot = checkpoint.current_snapshot()
        assert snapshot is not None
        live = [row for part in snapshot.live_parts for row in checkpoint.read_live(part).to_pylist()]
        prefix = len(checkpoint.root) + 1
        files = [file.uri[prefix:] for file in filesystem.list_files(checkpoint.root, "**")]
        found = {
            "rows": [[row["id"], digest([row], columns(config))] for row in rows],
            "surplus": total - len(rows),  # keys that a server holds more than once, and a query shows once
            "live": [[row["id"], digest([row], columns(config))] for row in live],
            "files": [file for file in files if not file.startswith("runs/")],
            "collections": [name.removeprefix(config.name) for name in names],
        }
        output.write_text(json.dumps(found))
        return 0

    return work


def drop(folder: Path) -> int:
    from schemas.config.loader import load_config
    from transforms import milvus

    config = load_config(folder / "vecbeam.yaml")
    with milvus.connected(config.collection) as connection:
        if milvus.served(connection, config.name):
            connection.client.drop_alias(config.name)
        for name in connection.client.list_collections():
            if name.startswith(f"{config.name}_"):
                connection.client.drop_collection(name)
    return 0


def compare(found: Found | None, wanted: Found) -> dict[str, int]:
    """How many rows, files and collections are missing, duplicate, left over or different."""
    if found is None:
        return {name: int(name == "failed") for name in FAULTS}
    faults = Counter[str]()
    for name in ("rows", "live"):
        here, there = Counter(row_id for row_id, _ in found[name]), dict(wanted[name])
        faults["lost"] += len(there.keys() - here.keys())
        faults["orphaned"] += len(here.keys() - there.keys())
        faults["duplicated"] += here.total() - len(here)
        faults["wrong"] += sum(there.get(row_id, value) != value for row_id, value in found[name])
    faults["duplicated"] += max(0, found["surplus"])
    for name in ("files", "collections"):
        faults["lost"] += len({*wanted[name]} - {*found[name]})
        faults["orphaned"] += len({*found[name]} - {*wanted[name]})
    return {name: faults[name] for name in FAULTS}


def undisturbed(place: Place, world: World) -> Found:
    """What each command of a life leaves, how many batches it embeds and how many seconds it takes; made once."""
    kept = place.folder / "reference.json"
    if not kept.exists():
        life = Life(place, world, "r")
        reference: Found = {}
        for command in COMMANDS:
            life.configure(CORPORA[command])
            begun = time.monotonic()
            code = life.run(command)
            seconds = time.monotonic() - begun
            found = life.found()
            if code or found is None or compare(found, found) != dict.fromkeys(FAULTS, 0):
                sys.exit(f"the undisturbed {command} failed: {code}\n{life.output()[-4000:]}")
            reference[command] = {"found": found, "encoded": life.encoded(), "seconds": seconds}
        life.end()
        kept.write_text(json.dumps(reference))
    return dict(json.loads(kept.read_text()))


def live(place: Place, world: World, seed: int, reference: Found, usual: dict[str, float], *, kill: bool) -> None:
    """One life; prints a line for each command, and ends at the first that something is wrong with.

    Args:
        usual: seconds of each command, between which the moments are drawn; they follow the machine's speed.
    """
    chance = random.Random(seed)
    life = Life(place, world, f"k{seed}")
    for command in COMMANDS:
        life.configure(CORPORA[command])
        wanted = reference[command]
        moment = chance.random() * usual[command]
        ended = life.run_disturbed(command, moment) if kill else 0
        killed = ended != 0
        begun = time.monotonic()
        code = life.run(command) if killed or not kill else 0
        if killed:
            # The killed run and the next one have the start in common: a little more than an undisturbed one takes.
            usual[command] += 0.2 * (moment + time.monotonic() - begun - usual[command])
        faults = compare(life.found() if code == 0 else None, wanted["found"])
        if place.refusing is not None:  # the error is one that a user can act on
            faults["failed"] += ended not in (0, 1, 2) or "Traceback" in life.output()
        line = {"place": place.name, "seed": seed, "command": command, "killed": killed, "moment": round(moment, 3)}
        line |= {"twice": max(0, life.encoded() - wanted["encoded"]), **faults}
        bad = any(faults.values())
        if bad:
            line["output"] = life.output()[-2500:]
        sys.stdout.write(json.dumps(line) + "\n")  # one write: other workers print as well
        sys.stdout.flush()
        if bad:
            return  # its folder stays
    life.end()


def share_out(seeds: Sequence[int], workers: int, work: Callable[[int], None]) -> int:
    """Runs the seeds in some forks; returns how many of these failed."""
    children = []
    for worker in range(workers):
        child = os.fork()
        if child == 0:
            code = 70
            try:
                for seed in seeds[worker::workers]:
                    work(seed)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


def ready(place: Place, world: World) -> Found:
    """Imports what is heavy, writes the corpora, and returns the undisturbed life."""
    for name in ("pipelines.reindex", "pipelines.sync", "pipelines.gc", *(["obstore"] if place.checkpoint else [])):
        importlib.import_module(name)
    for corpus in ("corpus", "edited"):  # an earlier start may have been killed
        shutil.rmtree(place.folder / corpus, ignore_errors=True)
    prepare(place.folder, world)
    shutil.copytree(place.folder / "corpus", place.folder / "edited")
    assert in_fork(lambda: world.edit(place.folder / "edited") or 0) == 0
    return undisturbed(place, world)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--place", default="lite")
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--uri", default="")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--world", choices=WORLDS, default="texts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--refusing", type=Path, help="see above; with one worker")
    parser.add_argument("--undisturbed", action="store_true", help="kills nothing")
    given = parser.parse_args()
    place, world = (
        Place(given.place, given.folder.resolve(), given.uri, given.checkpoint, given.refusing),
        WORLDS[given.world],
    )
    reference = ready(place, world)
    usual = {command: reference[command]["seconds"] for command in COMMANDS}
    failed = share_out(
        given.seeds,
        given.workers,
        lambda seed: live(place, world, seed, reference, usual, kill=not given.undisturbed),
    )
    if failed:
        sys.exit(f"{failed} workers failed")


if __name__ == "__main__":
    main()
