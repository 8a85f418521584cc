"""Cranfield through the whole pipeline and `search`: nDCG@10, by precision and index.

    python benchmarks/cranfield.py ../shared/data/cranfield [--uri http://127.0.0.1:19530] [--index FLAT HNSW]
    python benchmarks/cranfield.py ../shared/data/cranfield --model glove-6b-50d --precision float32 --index FLAT

The folder holds docs.jsonl (id, title, author, text), queries.jsonl (id, text) and qrels.tsv (query, document,
relevance). A document counts with the best of its chunks. nDCG as in trec_eval: gain / log2(rank + 1), binary gains.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np

from pipelines.backfill import backfill
from pipelines.steps.collection.served import open_for_search, served_state
from pipelines.steps.search.queries.query_model import query_encoder
from schemas.config import Config
from schemas.config.loader import parse_config
from transforms import milvus
from transforms.encoders import text_inputs

MODEL = "all-MiniLM-L6-v2"
K = 10
CHUNKS_PER_DOCUMENT = 5


def configuration(
    folder: Path, work: Path, uri: str, index: str, *, chunked: bool, precision: str = "float32", model: str = MODEL
) -> Config:
    """Title and text as one item; by default the packaged MiniLM."""
    return parse_config(
        {
            "name": "cranfield",
            "corpus": {
                "paths": [str(folder.resolve() / "docs.jsonl")],
                "content": ["title", "text"],
                "metadata": {"author": "string"},
            },
            "chunk": {"max_tokens": 256, "overlap_tokens": 32} if chunked else False,
            "encoder": {"model": model, "precision": precision},
            "checkpoint": str(work / "checkpoint"),
            "collection": {"uri": uri, "metric": "COSINE", "index": {"type": index}},
            "verify": {"max_dropped_tokens": 1.0},
        }
    )


def rankings(config: Config, queries: dict[str, str]) -> dict[str, list[str]]:
    """For each query the ten best items."""
    vectors = query_encoder(config).encode(text_inputs(list(queries.values())), query=True).matrix
    found: dict[str, list[str]] = {}
    with milvus.connected(config.collection) as connection:
        state = served_state(connection, config)
        open_for_search(connection, state.name)
        for query_id, vector in zip(queries, vectors, strict=True):
            hits = milvus.search(
                connection,
                state.name,
                vector,
                K * CHUNKS_PER_DOCUMENT,
                output_fields=["item_id"],
                search_parameters=config.collection.search,
                index_type=config.collection.index.type,
            )
            found[query_id] = list(dict.fromkeys(hit.fields["item_id"] for hit in hits))[:K]
    return found


def ndcg(rankings: dict[str, list[str]], relevant: dict[str, set[str]]) -> float:
    """Mean nDCG@10 over the queries that have relevant documents."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    scores = []
    for query_id, documents in relevant.items():
        gains = np.array([document in documents for document in rankings[query_id]], float)
        ideal = discounts[: min(K, len(documents))].sum()
        scores.append(float((gains * discounts[: len(gains)]).sum() / ideal))
    return float(np.mean(scores))


def read_judgements(folder: Path) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Queries by id, and the relevant documents of each."""
    lines = (folder / "queries.jsonl").read_text().splitlines()
    queries = {row["id"]: row["text"] for row in map(json.loads, lines)}
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query_id, document, relevance = line.split("\t")
        if int(relevance) > 0 and query_id in queries:
            relevant.setdefault(query_id, set()).add(document)
    return queries, relevant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--uri", help="a Milvus server; Milvus Lite in a temporary folder without it")
    parser.add_argument("--model", default=MODEL, help="a catalogue name, a folder or a file")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--index", nargs="+", default=["FLAT", "HNSW"])
    arguments = parser.parse_args()
    queries, relevant = read_judgements(arguments.folder)
    print(f"{'precision':9} {'chunks':8} {'index':8} {'nDCG@10':>8} {'rows':>6} {'rejected':>8}")
    for chunked, precision in itertools.product((False, True), arguments.precision):
        with tempfile.TemporaryDirectory() as work:
            for index in arguments.index:
                uri = arguments.uri or str(Path(work) / "milvus.db")
                config = configuration(
                    arguments.folder,
                    Path(work),
                    uri,
                    index,
                    chunked=chunked,
                    precision=precision,
                    model=arguments.model,
                )
                report = backfill(config)
                score = ndcg(rankings(config, queries), relevant)
                kind = "yes" if chunked else "no"
                print(
                    f"{precision:9} {kind:8} {index:8} {score:8.4f} {report.verify.found:6} {report.items.rejected:8}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
