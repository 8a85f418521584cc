"""A million items compared with a snapshot: seconds and memory of the diff alone, with every file changed.

    python benchmarks/diff.py --rows 1000000

The corpus is generated, the encoder is the fake one, nothing is loaded into Milvus. 1% of the items are edited, 1% are
deleted and 1% added, spread over all files, so that every file is read again. The diff is a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.run.progress import Progress
from pipelines.run.session import Session
from pipelines.steps.corpus.changes import find_changes
from pipelines.steps.corpus.source import prepare
from pipelines.steps.judgement.standing import Standing
from pipelines.steps.snapshot.embedding import bring_up_to_date
from schemas.config import Config
from schemas.config.loader import parse_config
from schemas.records import Kind

FILES = 16
WORDS = [f"word{number}" for number in range(1000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["backfill", "diff"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.only:
        {"backfill": backfill, "diff": diff}[given.only](configuration(given.folder))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = dict(records(given.rows))
        write(folder, rows)
        made = run("backfill", folder)
        print(
            f"checkpoint of {made['items']:,} items made in {made['seconds']:.1f} s, {made['megabytes']:,} MB at most"
        )
        edit(rows, random.Random(0))
        write(folder, rows)
        found = run("diff", folder)
    print(f"{'items':>10} {'new':>8} {'changed':>8} {'deleted':>8} {'seconds':>8} {'MB at most':>10}")
    counts = " ".join(f"{found[name]:8,}" for name in ("new", "changed", "deleted"))
    print(f"{found['items']:10,} {counts} {found['seconds']:8.1f} {found['megabytes']:10,}")


def records(rows: int) -> Iterator[tuple[str, str]]:
    words = random.Random(1)
    for number in range(rows):
        yield f"item-{number}", f"{number} " + " ".join(words.choices(WORDS, k=12))


def edit(rows: dict[str, str], chosen: random.Random) -> None:
    share = len(rows) // 100
    some = chosen.sample(list(rows), 2 * share)
    for item in some[:share]:
        rows[item] += " edited"
    for item in some[share:]:
        del rows[item]
    rows.update({f"added-{number}": f"the {number}. addition" for number in range(share)})


def write(folder: Path, rows: dict[str, str]) -> None:
    (folder / "corpus").mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        paths = [folder / "corpus" / f"{number:02}.jsonl" for number in range(FILES)]
        streams = [stack.enter_context(path.open("w")) for path in paths]
        for item, text in rows.items():
            # By the item, so that an addition moves no other item to another file.
            streams[sum(item.encode()) % FILES].write(json.dumps({"id": item, "text": text}) + "\n")


def configuration(folder: Path) -> Config:
    return parse_config(
        {
            "name": "million",
            "corpus": {"paths": ["corpus/*.jsonl"]},
            "encoder": {"model": "fake", "dimensions": 8},
            "checkpoint": "checkpoint",
            "collection": {"uri": "./milvus.db"},
        },
        folder=folder,
    )


def run(step: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", step, "--folder", str(folder)]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def backfill(config: Config) -> None:
    start = time.perf_counter()
    with Progress(quiet=True) as quiet:
        snapshot = bring_up_to_date(Session("backfill", config, quiet), prepare(config), Standing())
    show(items=snapshot.total("items"), seconds=time.perf_counter() - start)


def diff(config: Config) -> None:
    with Progress(quiet=True) as quiet:
        session, source = Session("diff", config, quiet), prepare(config)
        start = time.perf_counter()
        changes = find_changes(session, source, source.checkpoint.current_snapshot(), session.uri("diff"))
        seconds = time.perf_counter() - start
    show(
        items=changes.surveyed,
        new=changes.count(Kind.NEW),
        changed=changes.count(Kind.CHANGED),
        deleted=changes.deleted,
        seconds=seconds,
    )


def show(**facts: Any) -> None:
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({**facts, "megabytes": megabytes}))


if __name__ == "__main__":
    main()
