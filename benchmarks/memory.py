"""Peak memory of a backfill on a small and on a large part of a corpus.

    python benchmarks/memory.py ../shared/data/debian/corpus.jsonl.gz --rows 4000 63666 \
        [--precision bfloat16] [--uri http://127.0.0.1:19530]

Each size runs in a process of its own; the figure is the report's peak_rss_mb (largest resident size of the process).
Without --uri the collection is in Milvus Lite, whose engine lives in the same process and holds the collection there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import yaml


def run(corpus: Path, rows: int, precision: str, model: str, uri: str) -> dict[str, object]:
    """The report of a backfill of the first rows of a corpus."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with (gzip.open if corpus.suffix == ".gz" else open)(corpus, "rb") as source:  # type: ignore[operator]
            (work / "corpus.jsonl").write_bytes(b"".join(islice(source, rows)))
        configuration = {
            "name": f"memory_{rows}",
            "corpus": {"paths": ["corpus.jsonl"], "metadata": {"section": "string"}},
            "encoder": {"model": model, "precision": precision},
            "checkpoint": "checkpoint",
            "collection": {"uri": uri, "index": {"type": "HNSW"}},
        }
        (work / "vecbeam.yaml").write_text(yaml.safe_dump(configuration))
        command = [sys.executable, "-m", "pipelines.cli", "backfill", str(work / "vecbeam.yaml"), "--json", "--quiet"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report: dict[str, object] = json.loads(done.stdout)
        return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[4000, 63666])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--uri", default="./milvus.db")
    arguments = parser.parse_args()
    print(f"{'items':>7} {'rows':>7} {'seconds':>8} {'peak MB':>8} {'ratio':>6}")
    first = None
    for rows in arguments.rows:
        report = run(arguments.corpus, rows, arguments.precision, arguments.model, arguments.uri)
        peak = int(str(report["peak_rss_mb"]))
        first = first or peak
        items, verified, seconds = report["items"], report["verify"], report["seconds"]
        print(
            f"{items['read']:7} {verified['found']:7} {seconds['total']:8.1f} {peak:8} {peak / first:6.2f}", flush=True
        )  # type: ignore[index]
    print(json.dumps({"corpus": arguments.corpus.name, "precision": arguments.precision, "model": arguments.model}))


if __name__ == "__main__":
    main()
