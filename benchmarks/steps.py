"""Where the wall time of a backfill goes, step by step; all that is not the encoder should be 15 % or less.

    python benchmarks/steps.py ../shared/data/debian/corpus_10000.jsonl [--precision float32]

Whole process, from its start to its exit; the steps are those of the report. What no step accounts for (the runner,
the interpreter's end) counts as not the encoder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        configuration = {
            "name": "steps",
            "corpus": {"paths": [str(arguments.corpus.resolve())], "metadata": {"section": "string"}},
            "encoder": {"model": "all-MiniLM-L6-v2", "precision": arguments.precision},
            "checkpoint": "checkpoint",
            "collection": {"uri": "./milvus.db", "index": {"type": "HNSW"}},
        }
        (work / "vecbeam.yaml").write_text(yaml.safe_dump(configuration))
        command = [sys.executable, "-m", "pipelines.entry", "backfill", str(work / "vecbeam.yaml"), "--json", "--quiet"]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        wall = time.perf_counter() - start
    report = json.loads(done.stdout)
    seconds = report["seconds"]
    print(f"{'step':12} {'seconds':>8} {'share':>7}")
    accounted = 0.0
    for step, spent in seconds.items():
        if step != "total":
            accounted += spent
            print(f"{step:12} {spent:8.2f} {spent / wall:7.1%}")
    print(f"{'the rest':12} {wall - accounted:8.2f} {(wall - accounted) / wall:7.1%}")
    print(f"{'whole':12} {wall:8.2f} {1:7.1%}")
    print(f"not the encoder: {(wall - seconds['embed']) / wall:.1%} of {report['items']['read']} items")


if __name__ == "__main__":
    main()
