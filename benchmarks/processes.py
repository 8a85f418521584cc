"""One process whose engine uses all cores, against one process and model per core: tokens per second of a corpus.

    python benchmarks/processes.py ../shared/data/debian/corpus_2000.jsonl [--precision bfloat16] [--engine auto] \
        [--rounds 7] [--json FILE]

Both are started and warm before the first round; rounds take turns, so that a drifting machine favours neither.
Texts are tokenized in the time that is measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common

from schemas.config import EncoderConfig
from transforms.encoders import resolve, text_inputs


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--share", type=int, nargs=2, help="this process' number and how many there are: for itself")
    given = parser.parse_args()
    if given.share:
        serve(given.corpus, EncoderConfig(precision=given.precision, engine=given.engine), *given.share)
        return
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, __file__, str(given.corpus), "--precision", given.precision, "--engine", given.engine]
    one = [start(command, 0, 1)]
    several = [start(command, share, cores) for share in range(cores)]
    rows = []
    for _ in range(given.rounds):
        together, apart = rate(one), rate(several)
        rows.append({"one process": round(together), f"{cores} processes": round(apart), "ratio": apart / together})
    for process in one + several:
        process.kill()
        process.wait()
    common.show(rows, given.json)
    print(f"median ratio: {statistics.median(row['ratio'] for row in rows):.2f}")


def start(command: list[str], share: int, shares: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*command, "--share", str(share), str(shares)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def rate(processes: list[subprocess.Popen[str]]) -> float:
    begin = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("embed\n")
        process.stdin.flush()
    tokens = sum(int(process.stdout.readline()) for process in processes if process.stdout)
    return tokens / (time.perf_counter() - begin)


def serve(corpus: Path, config: EncoderConfig, share: int, shares: int) -> None:
    """Embeds each share-th text whenever a line comes in, and answers with its tokens."""
    if shares > 1:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[share]})
    texts = [record["text"] for record in common.records(corpus)][share::shares]
    encoder = resolve(config).load()
    encoder.encode(text_inputs(texts))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(int(encoder.encode(text_inputs(texts)).amount.sum()), flush=True)


if __name__ == "__main__":
    main()
