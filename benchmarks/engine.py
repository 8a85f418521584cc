"""Measures the engine alone: texts to vectors, by engine and precision, next to the library's own loop.

    python benchmarks/engine.py ../shared/data/debian/corpus_2000.jsonl [--rows 2000] [--rounds 3] [--json FILE]

Documents and tokens per second of one `encode` over all texts, by the median of some rounds after a warm-up, all
engines in turn in each; what share of the measured matrix rate the model's multiplications are (torch's own product of
two large matrices, in bfloat16 for what computes in it and in float32 else); cosine to the library's vectors.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
from matrix_rate import measure
from operations import Operations

from schemas.config import EncoderConfig
from transforms.encoders import Encoder, resolve, text_inputs
from transforms.encoders.engines import processor
from transforms.encoders.engines.amx import library as library_of_amx
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.sentence_transformers import SentenceTransformersModel

SETTINGS = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("amx", "float32"),
    ("amx", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
)
SAMPLE = 256

Name = tuple[str, str]
Run = Callable[[list[str]], np.ndarray[Any, Any]]


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    given = parser.parse_args()
    texts = [record["text"] for record in common.records(given.corpus, given.rows)]
    model = resolve(EncoderConfig(model=given.model))
    assert isinstance(model, SentenceTransformersModel)
    runs: dict[Name, Run] = {("sentence-transformers", "float32"): library(model.files.folder)}
    # Without instructions for bfloat16 torch emulates its products, for minutes; engines compute in float32 there.
    half = "bfloat16" if processor.has_bfloat16() else "float32"
    peaks = {"float32": measure("cpu", "float32"), "bfloat16": measure("cpu", half)}
    rates = {("sentence-transformers", "float32"): peaks["float32"]}
    for engine, precision in SETTINGS:
        if engine == "amx" and library_of_amx.lacking():
            print(f"without amx: {library_of_amx.lacking()}")
            continue
        chosen = {"model": given.model, "engine": engine, "precision": precision}
        encoder = resolve(EncoderConfig.model_validate(chosen)).load(texts[:SAMPLE])
        runs[engine, precision] = partial(vectors_of, encoder)
        rates[engine, precision] = peaks["float32" if encoder.runtime()["precision"] == "float32" else "bfloat16"]
    vectors, seconds = in_turn(runs, texts, given.rounds)
    encoded = encoder.encode(text_inputs(texts))
    tokens, flops = int(encoded.amount.sum()), Operations.of(Path(model.files.transformer_folder)).total(encoded.amount)
    exact = vectors["sentence-transformers", "float32"]
    rows = [
        row(*name, statistics.median(seconds[name]), texts, tokens, flops / rates[name], vectors[name], exact)
        for name in runs
    ]
    print(f"matrix rate: {peaks['float32'] / 1e9:,.0f} GFLOP/s in float32, {peaks['bfloat16'] / 1e9:,.0f} in bfloat16")
    common.show(rows, given.json)


def vectors_of(encoder: Encoder, texts: list[str]) -> np.ndarray[Any, Any]:
    vectors: np.ndarray[Any, Any] = encoder.encode(text_inputs(texts)).matrix
    return vectors


def library(folder: str) -> Run:
    """`SentenceTransformer.encode` with its defaults."""
    make_importable()
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    return lambda texts: model.encode(texts, normalize_embeddings=True)


def in_turn(
    runs: dict[Name, Run], texts: list[str], rounds: int
) -> tuple[dict[Name, np.ndarray[Any, Any]], dict[Name, list[float]]]:
    """Vectors of each, and its seconds round by round."""
    for run in runs.values():
        run(texts[:64])
    vectors: dict[Name, np.ndarray[Any, Any]] = {}
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            vectors[name] = run(texts)
            seconds[name].append(time.perf_counter() - start)
    return vectors, seconds


def row(
    engine: str, precision: str, seconds: float, texts: list[str], tokens: int, at_peak: float, found: Any, exact: Any
) -> dict[str, Any]:
    cosine = (found * exact).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    return {
        "engine": engine,
        "precision": precision,
        "seconds": round(seconds, 2),
        "documents/s": round(len(texts) / seconds, 1),
        "tokens/s": round(tokens / seconds),
        "of matrix rate": round(at_peak / seconds, 3),
        "cosine mean": round(float(cosine.mean()), 6),
        "cosine min": round(float(cosine.min()), 6),
    }


if __name__ == "__main__":
    main()
