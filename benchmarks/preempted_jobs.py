"""Random kills of workers on Beam's job server, next to a simulation: batch size against lost work.

    python benchmarks/preempted_jobs.py [--seeds 3] [--sizes 24 96] [--json FILE]

`vecbeam backfill` starts jobs on the job server of `tests/portable`: an S3 store, Milvus, and two workers with file
systems of their own, in a network namespace. One of the workers, which the seed draws, gets a SIGKILL at a moment that
the seed draws, counted from the first batch of the job. The job server retries nothing, so the job ends, and the same
command starts the next one, until a job completes. The encoder sleeps, so that a batch takes the same time on a busy
machine, and writes a line as each batch begins and ends. The simulation gets the same numbers, with the time of a part
as an undisturbed run measured it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import common
from preemption import RUNS, Outcome, Setting

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "portable"))
portable = import_module("cluster")

FILES, ITEMS, WORKERS = 6, 96, 2
ROW_SECONDS = 0.04
SLOW = f"""

def _slow(self, inputs, *, encode=FakeEncoder.encode, **options):
    import pathlib, threading, time

    def write(word):
        with open(pathlib.Path(__file__).parents[3] / "encoded.txt", "a") as log:
            log.write(f"{{threading.get_ident()}} {{word}} {{time.monotonic()}} {{inputs.num_rows}}\\n")

    write("begin")
    time.sleep({ROW_SECONDS} * inputs.num_rows)
    done = encode(self, inputs, **options)
    write("end")
    return done


FakeEncoder.encode = _slow
"""


class Batches(NamedTuple):
    """What the workers' encoders wrote of a run.

    Attributes:
        begun: moments, of all workers, ascending.
        rows: of all that were begun. A batch at which a job died before is embedded in pieces, to find what kills.
        open: moments of those that did not end.
        parts: seconds between the end of a batch and the begin of the next one in the same thread.
        threads: that encoded.
    """

    begun: list[float]
    rows: int
    open: list[float]
    parts: list[float]
    threads: int


class Real(NamedTuple):
    """A run: its kills, rows done again, seconds lost, seconds of a part, threads that encode."""

    kills: int
    again: int
    lost: float
    part: float
    threads: int


def simulate(setting: Setting, seed: int) -> Outcome:
    """One run on a runner whose job ends with the first worker that dies: each loses the batch that it is at."""
    chance = random.Random(seed)
    left = [setting.batches] * setting.shards
    kills, again, lost, wall = 0, 0, 0.0, 0.0
    while True:
        dies = chance.expovariate(1 / setting.kill_every)
        queue = [shard for shard in range(setting.shards) if left[shard]]
        free = [0.0] * setting.workers
        while queue and min(free) < dies:
            worker = free.index(min(free))
            shard = queue.pop(0)
            while left[shard]:
                takes = setting.batch + setting.part
                if free[worker] + takes > dies:
                    again, lost, free[worker] = again + 1, lost + dies - free[worker], dies
                    break
                free[worker] += takes
                left[shard] -= 1
        wall += min(dies, max(free))
        if not any(left):
            return Outcome(kills, again, lost, 0.0, wall)
        kills += 1


def written(roots: Path) -> Batches:
    """Reads what the encoders wrote so far."""
    begun, still, parts, rows, count = [], [], [], 0, 0
    for log in roots.glob("plain-*/encoded.txt"):
        threads = defaultdict(list)
        for line in log.read_text().splitlines():
            thread, word, moment, number = line.split()
            threads[thread].append((word, float(moment)))
            rows += int(number) if word == "begin" else 0
        count += len(threads)
        for lines in threads.values():
            begun += [moment for word, moment in lines if word == "begin"]
            ends = [*lines[1:], ("begin", 0.0)]
            still += [
                at for (word, at), (after, _) in zip(lines, ends, strict=True) if word == "begin" and after == "begin"
            ]
            parts += [after[1] - before[1] for before, after in pairwise(lines) if after[0] == "begin"]
    return Batches(sorted(begun), rows, still, parts, count)


def backfill(cluster: Any, config: Path, roots: Path, chance: random.Random | None, mean: float) -> Real:
    """Backfills with kills, if there are any to be drawn, until a command completes."""
    for log in roots.glob("plain-*/encoded.txt"):
        log.unlink()
    kills, lost = 0, 0.0
    while True:
        before = len(written(roots).begun)
        run = cluster.start("backfill", config)
        while run.poll() is None and len(written(roots).begun) == before:
            time.sleep(0.02)
        moment = min(written(roots).begun[before:], default=0.0)
        dies = moment + chance.expovariate(1 / mean) if chance else float("inf")
        while run.poll() is None and time.monotonic() < dies:
            time.sleep(0.02)
        # The second job loads: there is no batch that it could lose.
        embedding = run.poll() is None and cluster.rows_in_parts(config) < FILES * ITEMS
        if chance and embedding:
            workers = cluster.namespace.lines("workers.jsonl")
            now = [one["process"] for one in workers if one["job"] == workers[-1]["job"]]
            at = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(chance.choice(now), signal.SIGKILL)
        done = portable.ended(run)
        if done.code == 0:
            found = written(roots)
            return Real(kills, found.rows - FILES * ITEMS, lost, statistics.median(found.parts or [0.0]), found.threads)
        if not (chance and embedding):
            sys.exit(f"the backfill failed: {done.said}")
        kills += 1
        lost += sum(at - one for one in written(roots).open if moment <= one <= at)


def measured(seeds: int, sizes: list[int], mean: float) -> list[dict[str, Any]]:
    """A row for each batch size."""
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, portable.running(Path(folder), workers=WORKERS) as cluster:
        roots = Path(folder) / "roots"
        for root in roots.glob("plain-*"):
            with open(root / "installed" / "transforms" / "encoders" / "fake.py", "a") as module:
                module.write(SLOW)
        documents = portable.documents("preempted", FILES, ITEMS)
        shard_bytes = max(len(text) for text in documents.values())
        for size in sizes:
            found = []
            for seed in range(-1, seeds):
                name = f"size_{size}_{seed + 1}"
                config = cluster.configure(name, "preempted", batch_rows=size)
                text = config.read_text().replace("shard_bytes: 2048", f"shard_bytes: {shard_bytes}")
                config.write_text(text)
                cluster.put(config, documents)
                chance = random.Random(seed) if seed >= 0 else None
                found.append(backfill(cluster, config, roots, chance, mean))
                print(f"{size} rows, seed {seed}: {found[-1]}", file=sys.stderr, flush=True)
            setting = Setting(
                workers=found[0].threads,
                shards=FILES,
                batches=ITEMS // size,
                batch=size * ROW_SECONDS,
                part=found[0].part,
                kill_every=mean,
                start=0,
            )
            runs = [simulate(setting, seed) for seed in range(RUNS)]
            again = statistics.quantiles([one.again for one in runs], n=20)
            real = found[1:]
            table.append(
                {
                    "batch_rows": size,
                    "batches": FILES * ITEMS // size,
                    "seconds of a batch": setting.batch,
                    "runs": len(real),
                    "kills, real": statistics.fmean(one.kills for one in real),
                    "kills, simulated": statistics.fmean(one.kills for one in runs),
                    "again, real": statistics.fmean(one.again for one in real) / size,
                    "again, simulated": statistics.fmean(one.again for one in runs),
                    "of 9 in 10": f"{again[0]:.0f}-{again[-1]:.0f}",
                    "lost s, real": statistics.fmean(one.lost for one in real),
                    "lost s, simulated": statistics.fmean(one.lost for one in runs),
                }
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[24, 96], help="batch_rows; they divide 96")
    parser.add_argument(
        "--mean", type=float, default=6.0, help="mean seconds from the first batch of a job to its kill"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    common.show(measured(given.seeds, given.sizes, given.mean), given.json)


if __name__ == "__main__":
    main()
