"""A search from the command line, and `Index.search` in a loop, of this checkout and of others, in turn.

    python benchmarks/search.py ../shared/data/debian/corpus_2000.jsonl [--other FOLDER] [--rounds 7] [--loop 200] \
        [--seconds 300] [--work FOLDER]

The corpus is loaded into Milvus Lite once. Then, in each round, `vecbeam search CONFIG QUERY` runs as a process of its
own, from start to exit; and in a loop through one Index in one process. FOLDER is another checkout of
vecbeam, e.g. `git archive 17af2a8 | tar x -C FOLDER`. Medians; of the loop also the first search, which opens
everything. A loop ends after so many seconds, however many searches it has done. The collection stays in the work
folder, where one is named.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

QUERY = "an editor for the terminal"
COMMAND = "import sys; sys.argv = ['vecbeam', 'search', *sys.argv[1:]]; from pipelines.entry import main; main()"
LOOP = """
import json, sys, time
from pipelines.index import Index
config, times, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
texts = [json.loads(line)["text"][:60] for line in open(sys.argv[4], encoding="utf-8")][:times]
index = Index(config)
took = []
for number in range(times):
    if sum(took) > seconds:
        break
    start = time.perf_counter()
    index.search(texts[number % len(texts)], k=10)
    took.append(time.perf_counter() - start)
print(json.dumps(took))
"""


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="folders of other checkouts")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--loop", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300.0, help="after which a loop ends early")
    parser.add_argument("--work", type=Path, help="folder of the collection, which is built where there is none")
    given = parser.parse_args()
    here = Path(__file__).resolve().parent.parent
    checkouts = [*(folder.resolve() for folder in given.other), here]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.work or Path(temporary)).resolve()
        config = folder / "vecbeam.yaml"
        if not config.exists():
            folder.mkdir(parents=True, exist_ok=True)
            common.vecbeam("backfill", common.configure(folder, given.corpus))
        commands: dict[Path, list[tuple[float, float]]] = {checkout: [] for checkout in checkouts}
        for _ in range(given.rounds + 1):
            for checkout in checkouts:
                commands[checkout].append(timed(checkout, COMMAND, str(config), QUERY))
        rows: list[dict[str, Any]] = []
        for checkout in checkouts:
            loop = json.loads(
                output(checkout, LOOP, str(config), str(given.loop), str(given.seconds), str(given.corpus.resolve()))
            )
            wall, processor = zip(*commands[checkout][1:], strict=True)  # the first of each warms the disk
            rows.append(
                {
                    "what": checkout.name,
                    "command, s": statistics.median(wall),
                    "fastest, s": min(wall),
                    "of the processor, s": statistics.median(processor),
                    "first search of a loop, s": loop[0],
                    "searches": len(loop),
                    "median of them, ms": 1000 * statistics.median(loop),
                }
            )
    common.show(rows, given.json)


def timed(checkout: Path, program: str, *arguments: str) -> tuple[float, float]:
    """Seconds from start to exit, and of processor time, which other work on the machine touches less."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    output(checkout, program, *arguments)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    return end - start, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def output(checkout: Path, program: str, *arguments: str) -> str:
    """What a program prints whose imports come from a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{checkout}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
