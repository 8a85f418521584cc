"""Retrieval on Cranfield, a row per encoder: nDCG@10, dimensions, documents/s. The table of docs/encoders.md.

    python benchmarks/retrieval.py --encoder lsa tfidf ../shared/data/cranfield
    python benchmarks/retrieval.py --encoder all-MiniLM-L6-v2+splade-tiny ../shared/data/cranfield
    python benchmarks/retrieval.py --encoder all-MiniLM-L6-v2+tokens:all-MiniLM-L6-v2 ../shared/data/cranfield

Each encoder embeds the field `text` of the 1,400 abstracts through `backfill` (a document is one chunk, exact search),
and `search` answers the 225 queries. Names with a plus are several vectors of a row, whose hits are fused by reciprocal
rank. `tokens:NAME` is the vectors of a model's tokens, without pooling: they rank the 100 best hits of the others again
(`--candidates`). Documents/s are documents per second of CPU time, of the encoders alone and loaded: the same on a busy
machine. Milvus computes bm25 itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cranfield import K, ndcg, read_judgements

from pipelines.backfill import backfill
from pipelines.steps.corpus.source import open_checkpoint
from pipelines.steps.search.search_options import SearchOptions
from pipelines.steps.search.searcher import Searcher
from schemas.config import Config, EncoderConfig
from schemas.config.loader import parse_config
from transforms.encoders import CATALOGUE, text_inputs
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.model_source import ModelSource
from transforms.encoders.models import Models

SETTINGS: Mapping[str, Mapping[str, Any]] = {}
"""Keys of `encoder` for an encoder that is not measured with its defaults, by its name."""
ENCODERS = (
    *("all-MiniLM-L6-v2", "use-multilingual", "glove-6b-50d", "splade-tiny"),
    *("tfidf", "lsa", "hashing", "word2vec", "projection"),
    *("bm25", "all-MiniLM-L6-v2+splade-tiny", "all-MiniLM-L6-v2+bm25"),
    *("all-MiniLM-L6-v2+tokens:all-MiniLM-L6-v2", "all-MiniLM-L6-v2+bm25+tokens:all-MiniLM-L6-v2"),
)
"""The rows of the table."""
TOKENS = "tokens:"
TIMED = 256
"""Documents that are timed."""


def configuration(folder: Path, work: Path, names: list[str], content: list[str]) -> Config:
    """A document as one chunk, with a vector for each encoder."""
    models = [tokens_of(name.removeprefix(TOKENS), work) if name.startswith(TOKENS) else name for name in names]
    vectors = {f"vector_{at}": {"model": model, **SETTINGS.get(model, {})} for at, model in enumerate(models)}
    return parse_config(
        {
            "name": "retrieval",
            "corpus": {"paths": [str(folder.resolve() / "docs.jsonl")], "content": content},
            "chunk": False,
            "batch_rows": 256 if any(name.startswith(TOKENS) for name in names) else 2048,
            "encoders": vectors,
            "checkpoint": str(work / "checkpoint"),
            "collection": {"uri": str(work / "milvus.db"), "index": {"type": "FLAT"}},
            "verify": {"max_dropped_tokens": 1.0},
        }
    )


def tokens_of(name: str, work: Path) -> str:
    """A folder with a late interaction model of a catalogue model's own tokens, without a projection."""
    make_importable()
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    place = ModelSource(EncoderConfig(model=name)).folder()
    limit = CATALOGUE[name].max_tokens
    tokens = Normalize(module_input_name="token_embeddings")
    modules = [Transformer(str(place), max_seq_length=limit), MultiVectorMask(), tokens]
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(work / "tokens"))
    return str(work / "tokens")


def measure(
    folder: Path, names: list[str], content: list[str], candidates: int
) -> tuple[float, list[str], float | None]:
    """nDCG@10, the dimensions of each vector, and documents/s of the encoders that vecbeam runs."""
    queries, relevant = read_judgements(folder)
    with tempfile.TemporaryDirectory() as work:
        config = configuration(folder, Path(work), names, content)
        backfill(config)
        searcher = Searcher(config, release=True)
        ranked = candidates if any(name.startswith(TOKENS) for name in names) else None
        options = SearchOptions(vector=list(config.vectors), candidates=ranked)
        hits = searcher.search(list(queries.values()), K, options).hits
        searcher.close()
        rankings = {query: [hit["item_id"] for hit in found] for query, found in zip(queries, hits, strict=True)}
        models = open_checkpoint(config)[1]
        dimensions = ["words" if one.computed else f"{one.dimensions:,}" for one in models.layout.vectors]
        rate = documents_per_second(models, config)
    return ndcg(rankings, relevant), dimensions, rate


def documents_per_second(models: Models, config: Config) -> float | None:
    """Documents per second of CPU time, by some of them; None if vecbeam runs no encoder."""
    corpus = config.corpus
    lines = Path(corpus.paths[0]).read_text().splitlines()[:TIMED]
    texts = ["\n\n".join(json.loads(line)[field] for field in corpus.content) for line in lines]
    encoders = [models.by_name[one.name].load() for one in models.layout.vectors if one.in_parts]
    if not encoders:
        return None
    for encoder in encoders:
        encoder.encode(text_inputs(texts[:8]))
    start = time.process_time()
    for encoder in encoders:
        encoder.encode(text_inputs(texts))
    return len(texts) / (time.process_time() - start)


def row(cells: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with docs.jsonl, queries.jsonl and qrels.tsv")
    parser.add_argument("--encoder", nargs="+", default=ENCODERS, help="names, or names joined by +; by default all")
    parser.add_argument("--content", nargs="+", default=["text"], help="fields of a document")
    parser.add_argument("--candidates", type=int, default=100, help="hits that vectors of tokens rank again")
    arguments = parser.parse_args()
    logging.getLogger("vecbeam").setLevel(logging.ERROR)
    print(row(("encoder", "nDCG@10", "dimensions", "documents/s")))
    print("|---|---|---|---|")
    for encoder in arguments.encoder:
        names = encoder.split("+")
        score, dimensions, rate = measure(arguments.folder, names, arguments.content, arguments.candidates)
        named = " + ".join(f"`{name}`" for name in names)
        print(row((named, f"{score:.3f}", ", ".join(dimensions), "" if rate is None else f"{rate:,.0f}")), flush=True)


if __name__ == "__main__":
    main()
