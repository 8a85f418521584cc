"""Rows of a served collection damaged at random, found by `verify`, and restored by `--repair` or `load --rebuild`.

    python tests/faults/damages.py --damages 1000 --seed 0 [--uri http://127.0.0.1:19530]

A damage is one number of a vector (by its last bit, or by anything), a text, a metadata value, a content hash, a row
too few or a row too many; on a server also a duplicate key. In each round ten rows are damaged: `verify` must
refuse the collection and to count each of them as what it is, and after the repair every row must be the
checkpoint's again, bit for bit. Prints how many were found and how many restored.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpora import configure, text, write_jsonl

from pipelines.backfill import backfill
from pipelines.load import load
from pipelines.steps.collection.held import open_snapshot
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import GateError
from transforms import milvus
from transforms.checkpoint import iterate_parts

ROWS = 300
OF_A_ROUND = 10
REBUILT = 10
"""Of so many rounds one ends with `load --rebuild` instead of `verify --repair`."""

Row = dict[str, Any]
METADATA = {
    "kind": {"type": "string"},
    "year": {"type": "int"},
    "weight": {"type": "float", "default": 1.5},
    "kept": {"type": "bool"},
}


@dataclass
class Tally:
    """What came of the damages, by kind."""

    made: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    restored: Counter[str] = field(default_factory=Counter)

    @property
    def whole(self) -> bool:
        return self.made == self.found == self.restored


def prepare(folder: Path, uri: str, rows: int = ROWS) -> Config:
    """A corpus in several parts, published."""
    # Where fields can't be null (the server of the tests), each item has all of them.
    nulls = not uri.startswith("http")
    items = [
        {
            "id": f"item-{number}",
            "text": text(number),
            "kind": None if nulls and number % 7 == 0 else f"kind {number % 5}",
            "year": None if nulls and number % 11 == 0 else 1900 + number,
            "weight": None if number % 5 == 0 else number / 3,
            "kept": number % 2 == 0,
        }
        for number in range(rows)
    ]
    write_jsonl(folder / "corpus" / "items.jsonl", items)
    config = configure(
        folder,
        corpus={"paths": ["corpus/*"], "metadata": METADATA},
        collection={"uri": uri, "index": {"type": "FLAT"}},
        batch_rows=64,
    )
    backfill(config)
    return config


def last_bit(row: Row, chance: random.Random) -> None:
    at = chance.randrange(len(row["vector"]))
    row["vector"][at] = np.nextafter(row["vector"][at], np.float32(9))


def any_number(row: Row, chance: random.Random) -> None:
    row["vector"][chance.randrange(len(row["vector"]))] += np.float32(chance.uniform(0.01, 100))


def other_text(row: Row, chance: random.Random) -> None:
    at = chance.randrange(len(row["text"]) + 1)
    row["text"] = chance.choice([row["text"][:at] + "~" + row["text"][at:], row["text"] + " ", text(10**6)])


def metadata(row: Row, chance: random.Random) -> None:
    changes: dict[str, Callable[[Any], Any]] = {
        "kind": lambda value: f"{value}~",
        "year": lambda value: (value or 0) + 1,
        "weight": lambda value: float(np.nextafter(value, 1e9)),
        "kept": lambda value: not value,
    }
    name = chance.choice(sorted(changes))
    row[name] = changes[name](row[name])


def hashed(row: Row, chance: random.Random) -> None:
    row["content_hash"] = f"{chance.getrandbits(128):032x}"


CHANGES: dict[str, Callable[[Row, random.Random], None]] = {
    "vector, last bit": last_bit,
    "vector": any_number,
    "text": other_text,
    "metadata": metadata,
    "hash": hashed,
}
KINDS = (*CHANGES, "row too few", "row too many")
TWICE = "key twice"


def damage(
    connection: milvus.Milvus, name: str, rows: dict[str, Row], kinds: list[str], chance: random.Random
) -> dict[str, str]:
    """Damages a row by each kind; returns id -> kind."""
    chosen = chance.sample(sorted(rows), len(kinds))
    done: dict[str, str] = {}
    for row_id, kind in zip(chosen, kinds, strict=True):
        row = {**rows[row_id], "vector": np.array(rows[row_id]["vector"], np.float32)}
        if kind == "row too few":
            connection.client.delete(name, ids=[row_id])
        elif kind == TWICE:
            connection.client.insert(name, [row])
        elif kind == "row too many":
            row_id = f"stranger-{chance.getrandbits(64)}#0"
            connection.client.upsert(name, [{**row, "id": row_id}])
        else:
            CHANGES[kind](row, chance)
            connection.client.upsert(name, [row])
        done[row_id] = kind
    connection.client.flush(name)
    return done


def rows_of(connection: milvus.Milvus, name: str) -> dict[str, Row]:
    """All rows of a small collection."""
    connection.client.load_collection(name)
    found = connection.client.query(
        name, filter='id != ""', limit=16384, output_fields=["*"], consistency_level="Strong"
    )
    return {row["id"]: {**row, "vector": np.asarray(row["vector"], np.float32).tobytes()} for row in found}


def in_checkpoint(config: Config) -> dict[str, Row]:
    """The rows that the checkpoint holds, with the defaults of their metadata."""
    checkpoint, snapshot, _ = open_snapshot(config)
    rows = [row for part in iterate_parts(checkpoint, snapshot.live_parts) for row in part.to_pylist()]
    defaults = {name: entry.default for name, entry in config.corpus.metadata.items() if entry.default is not None}
    for row in rows:
        row.update({name: default for name, default in defaults.items() if row[name] is None})
    return {row["id"]: {**row, "vector": np.asarray(row["vector"], np.float32).tobytes()} for row in rows}


def found_by_verify(config: Config, done: dict[str, str]) -> set[str]:
    """Damaged ids that `verify` counts as what they are; all or none, as a report holds numbers."""
    try:
        verify(config)
    except GateError as refused:
        seen = refused.report.verify
        kinds = Counter(done.values())
        asked = {
            "missing": kinds["row too few"],
            "unexpected": kinds["row too many"] + kinds[TWICE],
            "stale": kinds["hash"],
            "damaged": sum(kinds[kind] for kind in ("vector, last bit", "vector", "text", "metadata")),
        }
        in_vectors = kinds["vector, last bit"] + kinds["vector"]
        exact = all(getattr(seen, name) == number for name, number in asked.items())
        if exact and (seen.columns.get("vector", 0), seen.columns.get("text", 0)) == (in_vectors, kinds["text"]):
            return set(done)
    return set()


def run_round(config: Config, kinds: list[str], chance: random.Random, tally: Tally, *, rebuild: bool) -> None:
    """Damages rows, has them found, and restored."""
    with milvus.connected(config.collection) as connection:
        name = milvus.served(connection, config.name)
        assert name is not None
        connection.client.load_collection(name)
        plain = connection.client.query(
            name, filter='id != ""', limit=16384, output_fields=["*"], consistency_level="Strong"
        )
        done = damage(connection, name, {row["id"]: dict(row) for row in plain}, kinds, chance)
    tally.made.update(done.values())
    tally.found.update(done[row_id] for row_id in found_by_verify(config, done))
    if rebuild:
        assert load(config, rebuild=True).collection != name
    else:
        verify(config, repair=True)
    wanted = in_checkpoint(config)
    with milvus.connected(config.collection) as connection:
        served = milvus.served(connection, config.name)
        assert served is not None
        holds, total = rows_of(connection, served), milvus.count(connection, served)
        if rebuild and name != served:
            milvus.drop(connection, name)
    if holds == wanted and total == len(wanted):
        tally.restored.update(done.values())


def run(config: Config, damages: int, seed: int, *, twice: bool = False, shown: bool = False) -> Tally:
    """Rounds of damages until there were so many of them.

    Args:
        twice: makes duplicate keys as well, which only a server allows.
    """
    chance = random.Random(seed)
    tally = Tally()
    kinds = (*KINDS, TWICE) if twice else KINDS
    for start in range(0, damages, OF_A_ROUND):
        number = min(OF_A_ROUND, damages - start)
        drawn = [kinds[(start + at) % len(kinds)] for at in range(number)]
        run_round(config, drawn, chance, tally, rebuild=start // OF_A_ROUND % REBUILT == REBUILT - 1)
        if shown and not start // OF_A_ROUND % 10:
            print(f"{start + number} of {damages}", file=sys.stderr, flush=True)
    return tally


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--damages", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--uri", default="./milvus.db")
    given = arguments.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(Path(folder), given.uri)
        tally = run(config, given.damages, given.seed, twice=not config.collection.is_lite, shown=True)
    print(f"{'damage':18} {'made':>6} {'found':>6} {'restored':>9}")
    for kind in tally.made:
        print(f"{kind:18} {tally.made[kind]:6} {tally.found[kind]:6} {tally.restored[kind]:9}")
    totals = (tally.made.total(), tally.found.total(), tally.restored.total())
    print(
        f"{'all':18} {totals[0]:6} {totals[1]:6} {totals[2]:9}   {time.perf_counter() - began:.0f} s, seed {given.seed}"
    )
    sys.exit(0 if tally.whole else 1)


if __name__ == "__main__":
    main()
