"""Follows the remedies that messages recommend, and looks whether a row that is in the corpus is ever lost.

    python tests/faults/remedies.py --sequences 2000 [--seed 0] [--world texts|two_vectors|pictures]

A sequence begins with a collection that is in sync with its corpus. Something goes wrong (fields, files, limits, rows
that somebody else writes), a command is run, and then again and again what its last message recommends. After each
command every item that is in the corpus and was served before must still be served, whole. At the end all is put
right, and one more sync or reindex must serve just the corpus.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpora import WORDS
from drawings import drawing, encoded, save_timm_model

from pipelines.cli import app
from pipelines.run.jobs import beam_classes
from schemas.config.loader import load_config
from transforms import milvus
from transforms.encoders.engines.torch.torchvision_operators import make_importable

ITEMS = 24
SEQUENCES_OF_A_WORLD = 25
FOLLOWED = 5
"""Most commands of a sequence after the first."""
COMMANDS = ("plan", "sync", "backfill", "reindex", "verify", "load", "replay")
READS_ONLY = frozenset({"plan", "status", "report", "search", "init", "doctor"})

Rows = dict[str, tuple[str, int, int]]
"""Row id to the item's id, and start and end in its text."""


@dataclass
class Step:
    """One command of a sequence, as it was run."""

    words: list[str]
    exit_code: int
    output: str


@dataclass
class World:
    """A corpus, its configuration and its collection, in a folder of its own.

    Attributes:
        records: of each file, by its name below corpus/.
        cut_off: ids of records after the new end of a file that was cut, which are no longer in the corpus.
    """

    folder: Path
    random: random.Random
    uri: str = "./milvus.db"
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)
    made: int = 0

    def __post_init__(self) -> None:
        (self.folder / "corpus").mkdir(parents=True)
        self.begin()
        self.write_all()
        values = {
            "name": "walked",
            "batch_rows": 8,
            "checkpoint": "checkpoint",
            "collection": {"uri": self.uri, "index": {"type": "FLAT"}},
            **self.configuration(),
        }
        (self.folder / "vecbeam.yaml").write_text(yaml.safe_dump(values))

    def begin(self) -> None:
        for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz"):
            self.records[name] = [self.record() for _ in range(ITEMS // 3)]

    def configuration(self) -> dict[str, Any]:
        """The sections that follow from the corpus."""
        return {
            "corpus": {"paths": ["corpus/*"], "metadata": {"kind": "string"}},
            "chunk": {"max_tokens": 24, "overlap_tokens": 4},
            "encoder": {"model": "fake", "dimensions": 16, "max_tokens": 24},
        }

    @classmethod
    def troubles(cls) -> tuple[Callable[[World], list[str]], ...]:
        return TROUBLES

    def record(self) -> dict[str, Any]:
        self.made += 1
        words = " ".join(self.random.choices(WORDS, k=self.random.choice([4, 6, 40])))
        found = {"id": f"item-{self.made}", "text": f"{words} {self.made}", "kind": self.random.choice(WORDS)}
        if self.made % 4 == 0:
            found["note"] = f"a note {self.made}"
        return found

    # The corpus

    def write_all(self) -> None:
        for name, records in self.records.items():
            self.write(name, self.data(records))
        for path in (self.folder / "corpus").iterdir():
            if path.name not in self.records:
                path.unlink()

    def data(self, records: list[dict[str, Any]]) -> bytes:
        return b"".join(json.dumps(record).encode() + b"\n" for record in records)

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / "corpus" / name
        if name.endswith(".gz"):
            data = gzip.compress(data, mtime=0)
        if not path.exists() or path.read_bytes() != data:
            self.put(path, data)

    @staticmethod
    def put(path: Path, data: bytes) -> None:
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_bytes(data)
        if path.stat().st_mtime_ns <= before:  # a clock too coarse for this
            os.utime(path, ns=(before + 1000, before + 1000))

    def items(self) -> dict[str, str]:
        """Item id to text of all that the corpus holds, whether it can be read or not."""
        records = (record for records in self.records.values() for record in records)
        return {record["id"]: record["text"] for record in records if record["id"] not in self.cut_off}

    def paths(self) -> list[Path]:
        return [self.folder / "corpus" / name for name in self.records]

    def plain_file(self) -> Path | None:
        paths = [path for path in self.paths() if path.suffix == ".jsonl"]
        return self.random.choice(paths) if paths else None

    def edit(self) -> None:
        name = self.random.choice(sorted(self.records))
        self.random.choice(self.records[name])["text"] = f"edited {self.made}"
        self.records[name].append(self.record())

    # What is served

    def rows(self) -> Rows:
        config = load_config(self.folder / "vecbeam.yaml")
        with milvus.connected(config.collection) as connection:
            name = milvus.served(connection, config.name)
            if name is None or not milvus.exists(connection, name):
                return {}
            connection.client.load_collection(name)
            columns = ["id", "item_id", "start", "end"]
            found = connection.client.query(name, filter='id != ""', limit=16384, output_fields=columns)
        return {row["id"]: (row["item_id"], row["start"], row["end"]) for row in found}

    def run(self, words: list[str]) -> Step:
        command, *rest = words
        done = CliRunner().invoke(app, [command, str(self.folder / "vecbeam.yaml"), *rest, "--quiet"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Step(words, done.exit_code, done.stdout + done.stderr)


class TwoVectors(World):
    """Texts with two vectors, whose models have different limits."""

    def configuration(self) -> dict[str, Any]:
        values = super().configuration()
        wording = {"model": "fake", "dimensions": 8, "max_tokens": 40, "prompt": "about it: ", "metric": "IP"}
        return values | {"encoders": {"vector": values.pop("encoder"), "wording": wording}}


class Pictures(World):
    """Files of pictures; the records of each are one, with the number of its drawing."""

    def begin(self) -> None:
        save_timm_model(self.folder / "model")
        for _ in range(ITEMS):
            self.draw()

    def draw(self) -> None:
        self.made += 1
        self.records[f"drawing-{self.made}.png"] = [{"number": self.made}]

    def configuration(self) -> dict[str, Any]:
        return {"corpus": {"paths": ["corpus/*.png"]}, "encoder": {"model": str(self.folder / "model")}}

    @classmethod
    def troubles(cls) -> tuple[Callable[[World], list[str]], ...]:
        others = (wrong_fields, damaged_file, bad_records, new_bad_records)
        return (damaged_pictures, new_bad_pictures, *(trouble for trouble in TROUBLES if trouble not in others))

    def data(self, records: list[dict[str, Any]]) -> bytes:
        return encoded(drawing(records[0]["number"], (40, 32)))

    def items(self) -> dict[str, str]:
        return dict.fromkeys(self.records, "")

    def edit(self) -> None:
        self.made += 1
        self.records[self.random.choice(sorted(self.records))] = [{"number": self.made}]
        self.draw()


WORLDS = {"texts": World, "two_vectors": TwoVectors, "pictures": Pictures}


# What goes wrong: each changes the world and gives options for the commands that follow.


def wrong_fields(world: World) -> list[str]:
    wrong = ["corpus.content=[body]", "corpus.content=[note]", "corpus.id=key", "corpus.id=note", "corpus.id=kind"]
    return ["--set", world.random.choice([*wrong, "corpus.content=[text, note]", "corpus.metadata={kind: int}"])]


def damaged_file(world: World) -> list[str]:
    path = world.random.choice(world.paths())
    data = path.read_bytes()
    half = len(data) // 2
    while data[half - 1 : half] in b"}\n":  # a file that ends behind a record is whole
        half -= 1
    damages: list[Callable[[], bytes]] = [
        lambda: data[:half],
        lambda: b"\x00\xff" * 50,
        lambda: b'{"id": 1, "text"\n' * 9,
        lambda: data.replace(b'"text"', b'"body"'),
    ]
    damaged = world.random.choice(damages)()
    World.put(path, damaged)
    if path.suffix == ".jsonl" and len(damaged) == half:
        whole = data[: data.index(b"\n", half)]
        world.cut_off = {
            record["id"] for record in world.records[path.name] if f'"{record["id"]}"'.encode() not in whole
        }
    return []


def bad_records(world: World) -> list[str]:
    path = world.plain_file()
    if path is None:
        return []
    lines = path.read_bytes().split(b"\n")
    whole = [at for at, line in enumerate(lines) if line.startswith(b"{") and line.endswith(b"}")]
    for at in world.random.sample(whole, min(len(whole), world.random.choice([1, 3, len(whole)]))):
        record = json.loads(lines[at])
        record["text"] = world.random.choice([7, None, "", ["list"]])
        lines[at] = json.dumps(record).encode()
    World.put(path, b"\n".join(lines))
    return []


def new_bad_records(world: World) -> list[str]:
    if (path := world.plain_file()) is None:
        return []
    World.put(path, path.read_bytes() + b'{"id": "bad", "text": 7}\nno json at all\n')
    return []


def damaged_pictures(world: World) -> list[str]:
    """Pictures that are cut, pages of a web server, or empty."""
    for path in world.random.sample(world.paths(), world.random.choice([1, 2, 5])):
        data = path.read_bytes()
        World.put(path, world.random.choice([data[: len(data) // 2], b"<html>Not found</html>", b"", data[:-20]]))
    return []


def new_bad_pictures(world: World) -> list[str]:
    World.put(world.folder / "corpus" / "page.png", b"<html>Not found</html>")
    World.put(world.folder / "corpus" / "empty.png", b"")
    return []


def lowered_limits(world: World) -> list[str]:
    limits = ["verify.max_rejected=0", "verify.max_dropped_tokens=0", "corpus.max_deleted=0", "verify.recall_at_10=1"]
    (new_bad_pictures if isinstance(world, Pictures) else new_bad_records)(world)
    return ["--set", world.random.choice(limits)]


def vanished_files(world: World) -> list[str]:
    """Their items are no longer in the corpus, so deleting them loses nothing."""
    for name in world.random.sample(sorted(world.records), world.random.choice([1, 2])):
        del world.records[name]
    world.write_all()
    return []


def no_chunks(_: World) -> list[str]:
    return ["--set", "chunk=false"]


def foreign_writes(world: World) -> list[str]:
    config = load_config(world.folder / "vecbeam.yaml")
    with milvus.connected(config.collection) as connection:
        name = milvus.served(connection, config.name)
        connection.client.load_collection(name)
        rows = connection.client.query(name, filter='id != ""', limit=16384, output_fields=["*"])
        some = world.random.sample(rows, world.random.choice([1, 3, len(rows) // 2]))
        how = world.random.choice(["delete", "insert", "text", "vector", "drop"])
        if how == "delete":
            connection.client.delete(name, ids=[row["id"] for row in some])
        elif how == "insert":
            connection.client.upsert(name, [{**row, "id": f"stranger-{row['id']}"} for row in some])
        elif how == "text":
            text = {"text": "overwritten"} if "text" in some[0] else {}
            connection.client.upsert(name, [{**row, **text, "content_hash": "x"} for row in some])
        elif how == "vector":
            connection.client.upsert(name, [{**row, "vector": [-number for number in row["vector"]]} for row in some])
        else:
            connection.client.drop_alias(config.name)
            connection.client.drop_collection(name)
    return []


def lost_checkpoint(world: World) -> list[str]:
    kind = world.random.choice(["parts", "items", "snapshots", "all"])
    root = world.folder / "checkpoint"
    if kind == "all":
        shutil.rmtree(root)
        return []
    files = sorted(root.glob(f"*/*/{kind}/*.parquet")) or sorted(root.glob(f"*/{kind}/*.parquet"))
    for path in world.random.sample(files, min(len(files), world.random.choice([1, 2]))):
        path.unlink()
    return []


def edits(world: World) -> list[str]:
    world.edit()
    world.write_all()
    return []


TROUBLES = (
    *(wrong_fields, damaged_file, bad_records, new_bad_records, lowered_limits, vanished_files, no_chunks),
    *(foreign_writes, lost_checkpoint, edits),
)


def recommended(step: Step) -> list[list[str]]:
    """The commands that a message recommends, as words."""
    found: list[list[str]] = []
    command, options = step.words[0], [word for word in step.words[1:] if word != "--allow-deletes"]
    for match in re.finditer(r"vecbeam (\w+)((?: --[a-z-]+)*)", step.output):
        if match[1] in (*COMMANDS, "gc", "rollback"):
            found.append([match[1], *match[2].split()])  # with the configuration as it was
            found.append([match[1], *match[2].split(), *options])
    if "--allow-deletes" in step.output and command not in READS_ONLY:
        found.append([*step.words, "--allow-deletes"])
    if "same command" in step.output:
        found.append(step.words)
    if "raise verify.max_rejected to" in step.output:
        found.append([*step.words, "--set", "verify.max_rejected=1"])
    if "raise verify.max_dropped_tokens" in step.output:
        found.append([*step.words, "--set", "verify.max_dropped_tokens=1"])
    if "on_duplicate: first" in step.output:
        found.append([*step.words, "--set", "corpus.on_duplicate=first"])
    return [words for words in found if "corpus.max_deleted" not in words[-1]]


class RowsLostError(AssertionError):
    """A row that is in the corpus and was served is served no longer."""


def check(world: World, before: Rows, after: Rows, step: Step) -> None:
    """Raises RowsLostError where an item of the corpus that was served whole is not."""
    items = world.items()
    truncating = "chunk=false" in step.words and step.exit_code == 0
    for item, text in items.items():
        was = [row for row in before.values() if row[0] == item]
        now = [row for row in after.values() if row[0] == item]
        if not was:
            continue
        whole = max(end for _, _, end in was) >= len(text.rstrip())
        if not now:
            raise RowsLostError(f"{item} is served no longer")
        if whole and not truncating and max(end for _, _, end in now) < len(text.rstrip()):
            raise RowsLostError(f"{item} is served no longer to its end")


def walk(world: World, counts: Counter[str]) -> list[Step]:
    """One sequence, from a collection that is in sync to one that is in sync again.

    Raises:
        RowsLostError: with the commands and what they printed.
    """
    steps: list[Step] = []
    kept = {name: list(records) for name, records in world.records.items()}
    troubles = world.random.sample(world.troubles(), world.random.choice([1, 1, 2]))
    options = [word for trouble in troubles for word in trouble(world)]
    counts.update(trouble.__name__ for trouble in troubles)
    words = [world.random.choice(COMMANDS), *options]
    before = world.rows()
    try:
        for _ in range(1 + FOLLOWED):
            step = world.run(words)
            steps.append(step)
            after = world.rows()
            check(world, before, after, step)
            before = after
            following = recommended(step)
            if not following:
                break
            words = world.random.choice(following)
        # All is put right.
        for name in kept:
            world.records.setdefault(name, kept[name])
        world.cut_off = set()
        world.write_all()
        for words in (["sync"], ["reindex"], ["sync"]):
            steps.append(world.run(words))
            if steps[-1].exit_code == 0 and words == ["sync"]:
                break
        if {row[0] for row in world.rows().values()} != set(world.items()):
            raise RowsLostError("the collection is not what the corpus is, after all was put right")
    except RowsLostError as error:
        shown = "\n".join(f"$ vecbeam {' '.join(s.words)}\n{s.output.strip()}\nexit {s.exit_code}" for s in steps)
        raise RowsLostError(f"{error}\n{[trouble.__name__ for trouble in troubles]}\n{shown}") from None
    counts["commands"] += len(steps)
    return steps


def walks(sequences: int, seed: int, kind: type[World] = World, *, progress: bool = False) -> Counter[str]:
    """Runs some sequences, each from a state that the one before left in order; a new world comes now and then.

    Returns:
        Sequences, commands, rows lost, and each kind of trouble, counted.
    """
    beam_classes.remember()
    counts: Counter[str] = Counter(sequences=0, commands=0, lost=0)
    for start in range(0, sequences, SEQUENCES_OF_A_WORLD):
        folder = Path(tempfile.mkdtemp(prefix="remedies-"))
        world = kind(folder / "w", random.Random(seed * 1_000_003 + start))
        try:
            assert world.run(["backfill"]).exit_code == 0
            for _ in range(min(SEQUENCES_OF_A_WORLD, sequences - start)):
                walk(world, counts)
                counts["sequences"] += 1
        finally:
            milvus.release(load_config(world.folder / "vecbeam.yaml").collection)
            shutil.rmtree(folder)
        if progress:
            print(f"{counts['sequences']} sequences, {counts['commands']} commands", file=sys.stderr, flush=True)
    return counts


def main() -> None:
    """Prints how many sequences went through without a loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", choices=WORLDS, default="texts")
    given = parser.parse_args()
    make_importable()
    counts = walks(given.sequences, given.seed, WORLDS[given.world], progress=True)
    print(", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items()))


if __name__ == "__main__":
    main()
