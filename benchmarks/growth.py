"""Seconds and memory of a backfill as the corpus grows.

    python benchmarks/growth.py ../shared/data/debian/corpus.jsonl.gz --rows 2000 10000 60000 \
        [--precision bfloat16] [--uri http://127.0.0.1:19530] [--json FILE]

Each size runs in a process of its own; memory is the report's peak_rss_mb (largest resident size of the process).
Without --uri the collection is in Milvus Lite, whose engine lives in the same process and holds the collection there.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import common


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 10000, 60000])
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--uri", default="./milvus.db")
    given = parser.parse_args()
    figures: list[dict[str, Any]] = []
    for rows in [min(given.rows), *given.rows]:  # the first run leaves the converted model behind
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            corpus = work / "corpus.jsonl"
            corpus.write_text("".join(json.dumps(record) + "\n" for record in common.records(given.corpus, rows)))
            encoder = {"model": "all-MiniLM-L6-v2", "precision": given.precision}
            collection = {"uri": given.uri, "index": {"type": "HNSW"}}
            configuration = common.configure(
                work, corpus, name=f"growth_{rows}", encoder=encoder, collection=collection
            )
            seconds, report = common.vecbeam("backfill", configuration)
        figures.append(
            {
                "items": rows,
                "rows": report["verify"]["found"],
                "seconds": round(seconds, 1),
                "ms/item": round(seconds / rows * 1000, 3),
                "peak MB": report["peak_rss_mb"],
            }
        )
    common.show(figures[1:], given.json)


if __name__ == "__main__":
    main()
