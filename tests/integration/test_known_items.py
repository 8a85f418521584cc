"""Known items through the pipeline and a search: the first line of a docstring has to find the rest of it.

The labelled set is made from the corpus of `vecbeam demo`, the docstrings of this Python's standard library, so that it
exists on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from corpora import write_jsonl

from benchmarks.cranfield import rankings
from pipelines.backfill import backfill
from pipelines.demo import docstrings
from schemas.config import Config
from schemas.config.loader import parse_config

ITEMS = 200
LOWEST_RECALL = 0.88
LOWEST_RECIPROCAL = 0.66
"""Of the ten best. With Python 3.11: recall 0.940, mean reciprocal rank 0.733; another Python has other docstrings."""
SHORTEST_QUERY = 25
SHORTEST_REST = 120
"""Characters."""


def known_items() -> Iterator[tuple[str, str, str]]:
    """Id, query and text of docstrings that have a first line and more, none with the name of what it describes."""
    for record in docstrings():
        _, _, documentation = record["text"].partition("\n")
        query, _, rest = documentation.partition("\n\n")
        query, rest = " ".join(query.split()), rest.strip()
        if SHORTEST_QUERY <= len(query) <= 200 and len(rest) >= SHORTEST_REST:
            yield record["id"], query, rest


def labelled() -> tuple[list[dict[str, str]], dict[str, str]]:
    """Items, and the query that each is known to answer, by its id: the same ones on each machine with this Python."""
    found: dict[str, tuple[str, str]] = {}
    texts: set[str] = set()
    for name, query, rest in sorted(known_items(), key=lambda item: sha256(item[0].encode()).digest()):
        if query not in texts and rest not in texts:  # an inherited docstring would have two right answers
            found[name] = (query, rest)
            texts |= {query, rest}
    chosen = dict(list(found.items())[:ITEMS])
    items = [{"id": name, "text": rest} for name, (_, rest) in chosen.items()]
    return items, {name: query for name, (query, _) in chosen.items()}


def configuration(folder: Path) -> Config:
    return parse_config(
        {
            "name": "known_items",
            "corpus": {"paths": ["items.jsonl"]},
            "chunk": False,
            "encoder": {"model": "all-MiniLM-L6-v2", "precision": "float32"},
            "checkpoint": "checkpoint",
            "collection": {"uri": "./milvus.db", "metric": "COSINE", "index": {"type": "HNSW"}},
            "verify": {"max_dropped_tokens": 1.0},
        },
        folder=folder,
    )


def test_first_lines_find_their_docstrings(tmp_path: Path) -> None:
    items, queries = labelled()
    write_jsonl(tmp_path / "items.jsonl", items)
    config = configuration(tmp_path)

    report = backfill(config)

    found = rankings(config, queries)
    ranks = [ids.index(name) + 1 if name in ids else None for name, ids in found.items()]
    recall = sum(rank is not None for rank in ranks) / len(ranks)
    reciprocal = sum(1 / rank for rank in ranks if rank) / len(ranks)
    print(f"{len(ranks)} queries, recall@10 {recall:.3f}, MRR@10 {reciprocal:.3f}")
    assert report.items.read == len(queries) == ITEMS
    assert recall >= LOWEST_RECALL
    assert reciprocal >= LOWEST_RECIPROCAL
