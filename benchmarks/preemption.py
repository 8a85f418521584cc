"""Batch size against lost work, where workers are killed: a seeded simulation, and a real run held against it.

    python benchmarks/preemption.py                          # 100 workers, by batch size
    python benchmarks/preemption.py --batch-seconds 2 --kill-every 1800
    python benchmarks/preemption.py --real --seeds 3         # real runs with SIGKILLs, and what the simulation says

The simulation: workers take shards of batches from a queue. A batch takes a time with some spread, now and then a
straggler's, and a fixed time of its own for its part. A worker is killed after an exponentially distributed time, and
the next one needs a start. Batches whose part is written are not done again; the one in flight is.

A real run is `vecbeam backfill` in a process that gets a SIGKILL at seeded moments, counted from its first batch, as
long as a part is missing, and the same command again until it ends. The encoder sleeps, so that a batch takes the same
time on a busy machine, and writes a line as each batch begins and ends. The simulation gets the same numbers, with the
time of a part as an undisturbed run measured it.
"""

from __future__ import annotations

import argparse
import glob
import heapq
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import common
import yaml

RUNS = 500
ITEMS = 480
ENCODER = """
import sys, time
from transforms.encoders.fake import FakeEncoder
seconds, log, encode = float(sys.argv[1]), open(sys.argv[2], "a", buffering=1), FakeEncoder.encode
def slow(self, inputs, **options):
    log.write(f"begin {time.monotonic()}\\n")
    time.sleep(seconds * inputs.num_rows)
    done = encode(self, inputs, **options)
    log.write(f"end {time.monotonic()}\\n")
    return done
FakeEncoder.encode = slow
from pipelines.entry import main
sys.argv[1:] = sys.argv[3:]
main()
"""


@dataclass(frozen=True)
class Setting:
    """What a run meets; all times are in seconds.

    Attributes:
        batches: of a shard.
        batch: time of a batch without its part; `spread` is its standard deviation as a share.
        part: time that a batch takes in addition, whatever its size.
        kill_every: mean time between kills of one worker.
        start: from a kill to the first batch of the next worker.
        straggler: share of the batches that take `slower` times as long.
    """

    workers: int
    shards: int
    batches: int
    batch: float
    part: float
    kill_every: float
    start: float
    spread: float = 0.1
    straggler: float = 0.01
    slower: float = 5.0


class Outcome(NamedTuple):
    """Sums over the workers: kills, batches done again, seconds lost in them, seconds of starts, and the wall time."""

    kills: float
    again: float
    lost: float
    starts: float
    wall: float


def simulate(setting: Setting, seed: int) -> Outcome:
    """One run."""
    chance = random.Random(seed)
    left = [setting.batches] * setting.shards  # batches of each shard that have no part yet
    queue = list(range(setting.shards))[::-1]
    kills, again, lost, starts = 0, 0, 0.0, 0.0
    free: list[tuple[float, int]] = [(setting.start, worker) for worker in range(min(setting.workers, setting.shards))]
    dies = {worker: at + chance.expovariate(1 / setting.kill_every) for at, worker in free}
    wall = 0.0
    while free:
        now, worker = heapq.heappop(free)
        if not queue:
            wall = max(wall, now)
            continue
        shard = queue.pop()
        killed = False
        while left[shard]:
            takes = setting.batch * max(0.1, chance.gauss(1, setting.spread)) + setting.part
            takes *= setting.slower if chance.random() < setting.straggler else 1
            if now + takes > dies[worker]:
                again, lost, killed = again + 1, lost + dies[worker] - now, True
                break
            now += takes
            left[shard] -= 1
        if killed:
            queue.append(shard)
            kills, starts = kills + 1, starts + setting.start
            now = dies[worker] + setting.start
            dies[worker] = now + chance.expovariate(1 / setting.kill_every)
        heapq.heappush(free, (now, worker))
    return Outcome(kills, again, lost, starts, wall)


def averaged(setting: Setting, runs: int = RUNS) -> tuple[Outcome, tuple[float, float]]:
    """Means over seeds 0, 1, ...; with the 5th and 95th percentile of the batches done again."""
    found = [simulate(setting, seed) for seed in range(runs)]
    again = statistics.quantiles([one.again for one in found], n=20)
    return Outcome(*(statistics.fmean(column) for column in zip(*found, strict=True))), (again[0], again[-1])


def by_batch_size(setting: Setting, rows: int, sizes: Sequence[int], runs: int) -> list[dict[str, object]]:
    """A row for each size: `setting` is for batches of `rows` rows; the work is the same for all."""
    table: list[dict[str, object]] = []
    work = setting.shards * setting.batches * setting.batch
    for size in sizes:
        share = size / rows
        one = replace(setting, batches=max(1, round(setting.batches / share)), batch=setting.batch * share)
        mean, _ = averaged(one, runs)
        parts = one.shards * one.batches
        table.append(
            {
                "batch_rows": size,
                "seconds of a batch": one.batch,
                "parts": parts,
                "kills": round(mean.kills),
                "batches again": round(mean.again),
                "lost, %": 100 * mean.lost / work,
                "parts, %": 100 * parts * one.part / work,
                "starts, %": 100 * mean.starts / work,
                "wall h": mean.wall / 3600,
            }
        )
    return table


class Real(NamedTuple):
    """A real run: batches begun, parts, kills, seconds lost, and seconds from a batch's end to the next one's begin."""

    begun: int
    whole: int
    kills: int
    lost: float
    part: float


def parts(folder: Path) -> int:
    return len(
        glob.glob(f"{folder}/checkpoint/preempted/*/parts/*.parquet")
    )  # a folder may vanish: Path.rglob raises then


def backfill(folder: Path, row_seconds: float, kills: random.Random | None, mean: float) -> Real:
    """Backfills a folder, with kills if there are any to be drawn; returns what the encoder's log says."""
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": f"text {n}"}) + "\n" for n in range(ITEMS))
    )
    log = folder / "encoded.txt"
    log.touch()
    line = [
        sys.executable,
        "-c",
        ENCODER,
        str(row_seconds),
        str(log),
        "backfill",
        str(folder / "vecbeam.yaml"),
        "--quiet",
    ]
    count, lost, batches = 0, 0.0, ITEMS // yaml.safe_load((folder / "vecbeam.yaml").read_text())["batch_rows"]
    while True:
        before = len(log.read_text().splitlines())
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        moment = None
        while process.poll() is None:
            lines = log.read_text().splitlines()
            if moment is None and len(lines) > before:
                moment = float(lines[before].split()[1]) + (kills.expovariate(1 / mean) if kills else float("inf"))
            if moment is not None and time.monotonic() >= moment and parts(folder) < batches:
                process.kill()
            time.sleep(0.01)
        words = [text.split() for text in log.read_text().splitlines()]
        errors = process.stderr.read() if process.stderr else b""
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"the backfill failed: {errors.decode()}")
        count += 1
        if words[-1][0] == "begin":
            lost += (moment or 0.0) - float(words[-1][1])
    begins = [float(at) for word, at in words if word == "begin"]
    between = [float(after[1]) - float(before[1]) for before, after in pairwise(words) if after[0] == "begin"]
    return Real(len(begins), parts(folder), count, lost, statistics.median(between))


def real_runs(seeds: int, mean: float, sizes: Sequence[int], row_seconds: float, runs: int) -> list[dict[str, object]]:
    """Real runs of each batch size next to the simulation."""
    table: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            found: list[Real] = []
            undisturbed = None
            for seed in range(-1, seeds):
                folder = Path(name) / f"{size}-{seed}"
                chance = random.Random(seed) if seed >= 0 else None
                write_configuration(folder, size)
                one = backfill(folder, row_seconds, chance, mean)
                print(f"{size} rows, seed {seed}: {one}", file=sys.stderr, flush=True)
                undisturbed = undisturbed or one
                if chance:
                    found.append(one)
            assert undisturbed is not None
            setting = Setting(
                workers=1,
                shards=1,
                batches=ITEMS // size,
                batch=size * row_seconds,
                part=undisturbed.part,
                kill_every=mean,
                start=0,
                spread=0,
                straggler=0,
            )
            mean_of, (low, high) = averaged(setting, runs)
            again = [one.begun - one.whole for one in found]
            table.append(
                {
                    "batch_rows": size,
                    "batches": ITEMS // size,
                    "seconds of a batch": setting.batch,
                    "runs": len(found),
                    "kills, real": statistics.fmean(one.kills for one in found),
                    "kills, simulated": mean_of.kills,
                    "again, real": statistics.fmean(again),
                    "again, simulated": mean_of.again,
                    "of 9 in 10": f"{low:.0f}-{high:.0f}",
                    "lost s, real": statistics.fmean(one.lost for one in found),
                    "lost s, simulated": mean_of.lost,
                }
            )
            common.show(table[-1:])
    return table


def write_configuration(folder: Path, size: int) -> None:
    """Makes the folder of a run, with its configuration."""
    folder.mkdir()
    values = {
        "name": "preempted",
        "corpus": {"paths": [f"{folder}/a.jsonl"], "shard_bytes": 1 << 20},
        "encoder": {"model": "fake"},
        "batch_rows": size,
        "checkpoint": str(folder / "checkpoint"),
        "collection": {"uri": str(folder / "milvus.db"), "index": {"type": "FLAT"}},
    }
    (folder / "vecbeam.yaml").write_text(yaml.safe_dump(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--batches", type=int, default=16, help="of a shard, at --rows rows each")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--batch-seconds", type=float, default=8.0)
    parser.add_argument("--part-seconds", type=float, default=0.3)
    parser.add_argument("--kill-every", type=float, default=3600.0, help="mean seconds between kills of a worker")
    parser.add_argument("--start-seconds", type=float, default=240.0)
    parser.add_argument("--sizes", type=int, nargs="+", help="batch_rows")
    parser.add_argument("--runs", type=int, default=20, help="simulated runs of each size")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--seeds", type=int, default=3, help="real runs of each size")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.real:
        common.show(real_runs(given.seeds, 4.0, given.sizes or (6, 24, 96), 0.04, RUNS), given.json)
        return
    setting = Setting(
        workers=given.workers,
        shards=given.shards,
        batches=given.batches,
        batch=given.batch_seconds,
        part=given.part_seconds,
        kill_every=given.kill_every,
        start=given.start_seconds,
    )
    sizes = given.sizes or (128, 512, 2048, 8192, 32768)
    common.show(by_batch_size(setting, given.rows, sizes, given.runs), given.json)


if __name__ == "__main__":
    main()
