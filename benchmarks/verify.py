"""What `vecbeam verify` costs: all columns against ids and hashes, rows per second and peak memory.

    python benchmarks/verify.py --rows 10000 60000 [--uri http://127.0.0.1:19530]

Rows of 384 dimensions with texts of about 400 characters, published with a FLAT index and the fake encoder's vectors;
each command is a process of its own. Its rate is of the step that compares; `cpu s` is of the whole process, which on
Milvus Lite computes both sides, and says more than the wall where others use the machine as well.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
from pathlib import Path
from typing import Any

from common import configure, show, vecbeam

WORDS = "ask bee cat dog elk fox gnu hen ibis jay kite lynx mole newt owl pig quail ram seal toad".split()  # noqa: SIM905


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 60_000])
    parser.add_argument("--uri", default="./milvus.db")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args()
    show([row for rows in given.rows for row in measure(rows, given.uri)], given.json)


def measure(rows: int, uri: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        corpus = work / "corpus.jsonl"
        chance = random.Random(0)
        with corpus.open("w") as lines:
            for number in range(rows):
                text = " ".join(chance.choices(WORDS, k=90))
                lines.write(json.dumps({"id": f"item-{number}", "text": f"{text} {number}"}) + "\n")
        path = configure(
            work,
            corpus,
            chunk=False,
            encoder={"model": "fake", "dimensions": 384},
            collection={"uri": uri, "index": {"type": "FLAT"}},
            verify={"sample": 1, "recall_at_10": 0.0},
        )
        return [row_of(command, rows, path) for command in ("backfill", "verify", "verify --quick", "sync")]


def row_of(line: str, rows: int, path: Path) -> dict[str, Any]:
    command, *options = line.split()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, report = vecbeam(command, path, *options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = report["seconds"]["verify"]
    return {
        "command": line,
        "rows": rows,
        "compared": report["verify"]["compared"],
        "wall s": round(wall, 1),
        "cpu s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "verify s": round(seconds, 2),
        "rows/s": round(rows / seconds) if seconds else 0,
        "peak MB": report["peak_rss_mb"],
    }


if __name__ == "__main__":
    main()
