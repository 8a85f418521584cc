"""`vecbeam train` on Cranfield: nDCG@10 of held-out queries, before and after.

    python benchmarks/training.py ../shared/data/cranfield [--model static] [--seeds 0 1 2] [--hard-negatives 2]

The folder holds docs.jsonl (id, title, text), queries.jsonl (id, text) and qrels.tsv (query, document, relevance). A
pair is a query with a relevant document; the split is by query. The documents of all pairs are ranked. Hard negatives
are mined from a collection of all documents, which is published first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from pipelines.backfill import backfill
from pipelines.train import DEFAULT, OWN_WORDS, train
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import GateError
from transforms.train.own_words import NAME


def write_pairs(folder: Path, place: Path) -> int:
    """Writes a pair for each query and relevant document; returns how many."""
    documents = {}
    for line in (folder / "docs.jsonl").read_text().splitlines():
        record = json.loads(line)
        documents[str(record["id"])] = f"{record.get('title') or ''}\n\n{record.get('text') or ''}".strip()
    queries = {}
    for line in (folder / "queries.jsonl").read_text().splitlines():
        record = json.loads(line)
        queries[str(record.get("id", record.get("_id")))] = record["text"]
    pairs = []
    for line in (folder / "qrels.tsv").read_text().splitlines():
        query, document, grade = line.split("\t")
        if query in queries and documents.get(document) and grade.strip("-").isdigit() and int(grade) > 0:
            pairs.append({"query": queries[query], "positive": documents[document]})
    place.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return len(pairs)


def published(folder: Path, work: Path, model: str) -> Config:
    """The configuration of a collection of all documents, one row each."""
    path = work / "vecbeam.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "cranfield",
                "corpus": {"paths": [str((folder / "docs.jsonl").absolute())], "content": ["title", "text"]},
                "encoder": {"model": model, "precision": "float32"},
                "chunk": False,
                "checkpoint": "checkpoint",
                "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
                "verify": {"max_rejected": 0.1, "max_dropped_tokens": 1.0},
            }
        )
    )
    config = load_config(path)
    backfill(config)
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--dimensions", type=int, default=128, help="of --model static")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--hard-negatives", type=int, default=0)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--two-towers", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        pairs = Path(work) / "pairs.jsonl"
        print(f"{write_pairs(given.folder, pairs):,} pairs")
        collection = published(given.folder, Path(work), given.model) if given.hard_negatives else None
        for seed in given.seeds:
            usual = OWN_WORDS if given.model == NAME else DEFAULT
            settings = usual._replace(batch=given.batch, hard_negatives=given.hard_negatives, seed=seed)
            settings = settings._replace(
                epochs=given.epochs or usual.epochs,
                learning_rate=given.learning_rate or usual.learning_rate,
                two_towers=given.two_towers,
            )
            start = time.perf_counter()
            try:
                place = Path(work) / f"m{seed}"
                found = train(
                    pairs,
                    place,
                    model=given.model,
                    settings=settings,
                    dimensions=given.dimensions,
                    negatives_from=collection,
                )
                print(f"seed {seed}: written, {json.dumps(dict(found.figures))}")
            except GateError as error:
                print(f"seed {seed}: refused, {error.message}")
            print(f"seed {seed}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
