"""Cranfield with a dense and a sparse vector per row: nDCG@10 of each alone, and fused by reciprocal rank.

    python benchmarks/fusion.py ../shared/data/cranfield [--dense all-MiniLM-L6-v2] [--sparse splade-tiny]

The folder is that of cranfield.py. Each document's title and text are one chunk, of at most the dense model's tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from cranfield import MODEL, K, ndcg, read_judgements

from pipelines.backfill import backfill
from pipelines.steps.search.search_options import SearchOptions
from pipelines.steps.search.searcher import Searcher
from schemas.config.loader import parse_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dense", default=MODEL)
    parser.add_argument("--sparse", default="splade-tiny")
    arguments = parser.parse_args()
    queries, relevant = read_judgements(arguments.folder)
    with tempfile.TemporaryDirectory() as work:
        config = parse_config(
            {
                "name": "fusion",
                "corpus": {"paths": [str(arguments.folder.resolve() / "docs.jsonl")], "content": ["title", "text"]},
                "chunk": False,
                "encoders": {"dense": {"model": arguments.dense}, "sparse": {"model": arguments.sparse}},
                "checkpoint": str(Path(work) / "checkpoint"),
                "collection": {"uri": str(Path(work) / "milvus.db"), "index": {"type": "FLAT"}},
                "verify": {"max_dropped_tokens": 1.0},
            }
        )
        report = backfill(config)
        print(f"{report.verify.found} rows, {report.items.rejected} rejected, recall {report.verify.recalls}")
        searcher = Searcher(config, release=True)
        for names in (["dense"], ["sparse"], ["dense", "sparse"]):
            hits = searcher.search(list(queries.values()), K, SearchOptions(vector=names)).hits
            rankings = {query: [hit["item_id"] for hit in found] for query, found in zip(queries, hits, strict=True)}
            print(f"{' + '.join(names):16} {ndcg(rankings, relevant):.4f}", flush=True)
        searcher.close()


if __name__ == "__main__":
    main()
