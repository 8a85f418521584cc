"""A day's changes against the first run: wall time, what is embedded, and a run with nothing to do.

    python benchmarks/sync.py ../shared/data/debian/corpus_10000.jsonl

1% of the texts edited, 1% deleted, 1% added, at random places (seeded). Each command is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("corpus", type=Path)
    arguments.add_argument("--precision", default="float32")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = [json.loads(line) for line in given.corpus.read_text().splitlines()]
        write(folder, records)
        configure(folder, given.precision)
        first = run("backfill", folder)
        edit(records, random.Random(given.seed))
        write(folder, records)
        second = run("sync", folder)
        third = run("sync", folder)
    allowed = 0.05 * first["wall"] + 5
    print(f"{'':12} {'wall s':>8} {'startup':>8} {'embedded':>9} {'loaded':>7} {'deleted':>8} items")
    for label, found in (("backfill", first), ("sync 3%", second), ("sync nothing", third)):
        report = found["report"]
        chunks, items = report["chunks"], report["items"]
        print(
            f"{label:12} {found['wall']:8.1f} {report['seconds']['startup']:8.1f} {chunks['embedded']:9,} "
            f"{chunks['loaded']:7,} {chunks['deleted']:8,} new {items['new']} changed {items['changed']} "
            f"deleted {items['deleted']}"
        )
    print("of the sync:", ", ".join(f"{step} {spent:.1f}" for step, spent in second["report"]["seconds"].items()))
    print(f"sync took {second['wall']:.1f} s; 5% of the backfill and 5 s are {allowed:.1f} s")


def write(folder: Path, records: list[dict[str, Any]]) -> None:
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def edit(records: list[dict[str, Any]], random: random.Random) -> None:
    share = len(records) // 100
    for record in random.sample(records, share):
        record["text"] = f"{record['text']} It was edited today."
    for place in sorted(random.sample(range(len(records)), share), reverse=True):
        del records[place]
    for number in range(share):
        added = {**random.choice(records), "id": f"added-{number}"}
        added["text"] = f"The {number}. addition. {added['text']}"
        records.insert(random.randrange(len(records)), added)


def configure(folder: Path, precision: str) -> None:
    values = {
        "name": "changes",
        "corpus": {"paths": ["corpus.jsonl"], "content": ["text"]},
        "encoder": {"model": "all-MiniLM-L6-v2", "precision": precision},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db", "index": {"type": "HNSW"}},
    }
    (folder / "vecbeam.yaml").write_text(yaml.safe_dump(values))


def run(command: str, folder: Path) -> dict[str, Any]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.entry", command, str(folder / "vecbeam.yaml"), "--json", "--quiet"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return {"wall": time.perf_counter() - start, "report": json.loads(done.stdout)}


if __name__ == "__main__":
    main()
