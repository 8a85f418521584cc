"""The whole command and a sync without changes, of this checkout and of another, in turn.

    python benchmarks/before_after.py ../shared/data/debian/corpus_2000.jsonl --other FOLDER [--rounds 2]

FOLDER is another checkout of vecbeam, e.g. `git archive 17af2a8 | tar x -C FOLDER`. In each round each checkout runs
`vecbeam backfill` into a new checkpoint and Milvus Lite, then `vecbeam sync` three times, the fastest of which counts.
Each is a process, from start to exit. Each checkout has its own cache of converted models, filled in advance. Medians
over the rounds: seconds, processor seconds, and the peak of resident memory in MB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import common

HERE = Path(__file__).parents[1]
COMMAND = "import sys; sys.argv = ['vecbeam', *sys.argv[1:]]; from pipelines.entry import main; main()"
WARM_RECORDS = 50
SYNCS = 3


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    processor_seconds: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    sides = [given.other.absolute(), HERE]
    costs: dict[tuple[Path, str], list[Cost]] = {(side, step): [] for side in sides for step in ("backfill", "sync")}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        few = work / "few.jsonl"
        few.write_text("".join(given.corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:WARM_RECORDS]))
        for side in sides:
            run(side, work, "backfill", configuration(work, few, f"warm-{side.name}"))
        for number in range(given.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                config = configuration(work, given.corpus, f"{number}-{side.name}")
                costs[side, "backfill"].append(run(side, work, "backfill", config))
                costs[side, "sync"].append(min(run(side, work, "sync", config) for _ in range(SYNCS)))
    common.show(
        [
            {"checkout": side.name, "step": step}
            | {name: statistics.median(getattr(cost, name) for cost in found) for name in Cost._fields}
            for (side, step), found in costs.items()
        ]
    )


def configuration(work: Path, corpus: Path, name: str) -> Path:
    """A configuration of a corpus in a folder of its own."""
    folder = work / name
    folder.mkdir()
    return common.configure(folder, corpus, collection={"uri": "./milvus.db", "index": {"type": "HNSW"}})


def run(side: Path, work: Path, command: str, config: Path) -> Cost:
    """One command of a checkout, as a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(side), "VECBEAM_CACHE": str(work / f"cache-{side.name}")}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, command, str(config), "--quiet"],
        env=environment,
        cwd=work,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{side.name}: vecbeam {command} ended with status {status}")
    seconds = time.perf_counter() - start
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
