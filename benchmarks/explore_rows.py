"""Seconds and memory of `vecbeam explore` and `vecbeam export` by the number of rows.

    python benchmarks/explore_rows.py [--rows 500000 5000000] [--dimensions 16] [--json FILE]

The rows are generated: eight words of 2,000, of one of 50 topics, with a field that names the topic; the encoder is
`fake`. Each command is a process of its own, whose peak memory is measured. Up to 200,000 rows all are looked at, of
more a sample.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from common import show

WORDS, TOPICS, IN_TEXT = 2_000, 50, 8
FILE_ROWS = 250_000
COMMANDS = {
    "duplicates": ["explore", "duplicates", "--above", "0.98"],
    "outliers": ["explore", "outliers"],
    "clusters": ["explore", "clusters"],
    "clusters --field": ["explore", "clusters", "-n", "50", "--field", "topic"],
    "labels": ["explore", "labels", "--label", "word1 word41", "--label", "word2 word42"],
    "map": ["explore", "map", "--color", "topic"],
    "similar": ["explore", "similar", "{config}", "0", "1", "--text", "word3 word43"],
    "drift": ["explore", "drift", "--since", "{since}"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 5_000_000])
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args()
    figures: list[dict[str, Any]] = []
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            figures += measured(Path(folder), rows, given.dimensions)
    show(figures, given.json)


def measured(work: Path, rows: int, dimensions: int) -> list[dict[str, Any]]:
    """A figure for each command."""
    config = work / "vecbeam.yaml"
    write_rows(work / "corpus", 0, rows * 9 // 10)
    config.write_text(
        yaml.safe_dump(
            {
                "name": "rows",
                "corpus": {"paths": ["corpus/*.parquet"], "content": ["text"], "metadata": {"topic": "string"}},
                "chunk": False,
                "encoder": {"model": "fake", "dimensions": dimensions},
                "checkpoint": "checkpoint",
                "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
            }
        )
    )
    found = [run("backfill", rows, ["backfill", str(config), "--quiet"])]
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1)  # --since has whole seconds
    write_rows(work / "corpus", rows * 9 // 10, rows)
    found.append(run("sync of a tenth", rows, ["sync", str(config), "--quiet"]))
    for name, command in COMMANDS.items():
        places = [part.format(config=config, since=since) for part in command]
        given = places if str(config) in places else [*places, str(config)]
        found.append(run(name, rows, [*given, "--out", str(work / f"{name}.parquet")]))
    found.append(run("export", rows, ["export", str(work / "export.parquet"), str(config)]))
    return found


def write_rows(folder: Path, first: int, after: int) -> None:
    """Writes Parquet files of generated rows; the same for the same numbers."""
    folder.mkdir(exist_ok=True)
    for begin in range(first, after, FILE_ROWS):
        count = min(FILE_ROWS, after - begin)
        random = np.random.default_rng(begin)
        topics = random.integers(0, TOPICS, count)
        words = random.integers(0, WORDS // TOPICS, (count, IN_TEXT)) * TOPICS + topics[:, None]
        texts = [" ".join(f"word{word}" for word in row) for row in words.tolist()]
        ids = [str(number) for number in range(begin, begin + count)]
        table = pa.table({"id": ids, "text": texts, "topic": [f"topic {one}" for one in topics.tolist()]})
        pq.write_table(table, folder / f"{begin:09d}.parquet")


def run(name: str, rows: int, command: list[str]) -> dict[str, Any]:
    """Seconds and peak memory of a command."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pipelines.entry", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    figure = {"rows": f"{rows:,}", "command": name, "exit": os.waitstatus_to_exitcode(status)}
    figure |= {"s": round(seconds, 1), "peak MB": round(usage.ru_maxrss / 1024)}
    print(figure, flush=True)
    return figure


if __name__ == "__main__":
    main()
