"""Measures a GPU: texts and images to vectors, next to the libraries' own best configuration, and whole backfills.

    python benchmarks/gpu.py ../shared/data/debian/corpus_10000.jsonl --images ../shared/data/images [--json FILE]

Models have the shape of MiniLM, BERT-base and ViT-B-32, and seeded random weights: only their shapes count for rates.
The peers: sentence-transformers in bfloat16, without padding by flash attention, at the best of some batch sizes; and
open_clip in bfloat16, with a DataLoader of one process per core. Where flash-attn is not installed, its functions call
torch's own copy of its kernels. Rates are the median of some rounds. The share of the peak is model FLOP utilisation
by wall time, of the bfloat16 rate in the card's data sheet (--peak, in TFLOP/s, without sparsity).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
from gpu_images import images
from gpu_models import SHAPES, lengths, provide_flash_attention, save_bert, seconds_of, tokenizer
from matrix_rate import measure
from operations import Operations

from schemas.config import EncoderConfig
from schemas.config.loader import parse_config
from transforms.encoders import Encoder, resolve, text_inputs
from transforms.encoders.engines.torch.torchvision_operators import make_importable

PEER_BATCHES = (64, 512, 2048)
THREADS = 4
TABLE = 4096
WHOLE = 24_000
"""Documents of a whole backfill."""


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--images", type=Path, help="a folder of photographs, with labels.tsv")
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json and config.json; the packaged model's"
    )
    parser.add_argument("--peak", type=float, default=989.4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["check", "text", "pipeline", "image"])
    given = parser.parse_args()
    make_importable()
    import torch

    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a GPU, and torch sees none here")
    provide_flash_attention(Path(tempfile.mkdtemp(prefix="vecbeam-flash-")))
    rate = measure("cuda", "bfloat16") / 1e12
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores, product {rate:.0f} TFLOP/s"
    )
    texts = [record["text"] for record in common.records(given.corpus)]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vecbeam-gpu-") as place:
        folders = {name: save_bert(Path(place) / name, name, tokenizer(given.tokenizer)) for name in SHAPES}
        if "check" in given.only:
            check(folders, texts)
        kinds = lengths(texts, tokenizer(given.tokenizer))
        if "text" in given.only:
            for name, folder in reversed(folders.items()):
                for length, some in reversed(kinds.items()):
                    rows += texts_of(name, folder, length, some, given)
        if "pipeline" in given.only:
            for name, length in (("bert-base", "512"), ("minilm", "mixed")):
                rows += [whole(Path(place), name, folders[name], length, (kinds[length] * 8)[:WHOLE])]
        if "image" in given.only and given.images:
            rows += images(Path(place), given.images, given)
    for row in rows:
        print(json.dumps(row))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def tables(encoder: Encoder, texts: list[str]) -> Any:
    """Texts to vectors as workers embed them: tables on some threads, which tokenize while others compute."""
    return on_threads(encoder, [text_inputs(texts[start : start + TABLE]) for start in range(0, len(texts), TABLE)])


def on_threads(encoder: Encoder, pieces: list[Any]) -> Any:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(encoder.encode, pieces))


def check(folders: dict[str, Path], texts: list[str]) -> None:
    """Vectors next to the library's in float32, in every order, after a batch that did not fit, and one model a GPU."""
    import torch
    from sentence_transformers import SentenceTransformer

    some = texts[:512]
    for name, folder in folders.items():
        exact = SentenceTransformer(str(folder), device="cuda").encode(some, normalize_embeddings=True)
        for precision in ("float32", "bfloat16"):
            before = torch.cuda.memory_allocated()
            encoder = resolve(EncoderConfig(model=str(folder), precision=precision)).load()
            with ThreadPoolExecutor(THREADS) as pool:
                found = [one.matrix for one in pool.map(encoder.encode, [text_inputs(some)] * THREADS)]
            alone = np.concatenate([encoder.encode(text_inputs([text])).matrix for text in some[:64]])
            held = (torch.cuda.memory_allocated() - before) / 2**20
            cosine = (found[0] * exact).sum(axis=1)
            print(
                f"{name} {precision}: cosine to the library's float32 mean {cosine.mean():.6f} min {cosine.min():.6f}; "
                f"alone against in a batch {(alone * found[0][:64]).sum(axis=1).min():.6f}; threads agree "
                f"{min((one * found[0]).sum(axis=1).min() for one in found):.6f}; {held:.0f} MiB held"
            )
            print(encoder.runtime())
    small = resolve(EncoderConfig(model=str(folders["bert-base"]), precision="bfloat16", batch_tokens=2_000_000)).load()
    torch.cuda.empty_cache()
    whole_memory = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / whole_memory + 2**28 / whole_memory)
    cosine = (small.encode(text_inputs(some)).matrix * exact).sum(axis=1)
    torch.cuda.set_per_process_memory_fraction(1.0)
    budget = small._engine._budget  # type: ignore[attr-defined]
    print(f"out of memory: all texts at once in 256 MiB more; then {budget} tokens a batch; {cosine.min():.6f}")


def texts_of(name: str, folder: Path, length: str, texts: list[str], given: Any) -> list[dict[str, Any]]:
    import torch
    from sentence_transformers import SentenceTransformer

    encoder = resolve(EncoderConfig(model=str(folder), precision="bfloat16")).load()
    encoded = tables(encoder, texts)
    amount = np.concatenate([one.amount for one in encoded])
    flops = Operations.of(folder).total(amount)
    ours = [seconds_of(partial(tables, encoder, texts)) for _ in range(given.rounds)]
    known = [np.zeros(size, np.int32) + 2000 for size in amount]
    inputs = [
        text_inputs(texts[start : start + TABLE], known[start : start + TABLE]) for start in range(0, len(texts), TABLE)
    ]
    without = [seconds_of(partial(on_threads, encoder, inputs)) for _ in range(given.rounds)]
    busy = sum(one.work.busy_seconds for one in encoded)
    runtime = encoder.runtime()
    del encoder
    torch.cuda.empty_cache()
    peers = {}
    for attention in ("flash_attention_2", "sdpa") if length == "mixed" else ("flash_attention_2",):
        kinds = {"dtype": torch.bfloat16, "attn_implementation": attention}
        peer = SentenceTransformer(str(folder), device="cuda", model_kwargs=kinds)
        least = {}
        for size in PEER_BATCHES:
            peer.encode(texts[:size], batch_size=size)
            some = texts[: len(texts) // 4]
            least[size] = seconds_of(partial(peer.encode, some, batch_size=size, show_progress_bar=False))
        best = min(least, key=lambda size: least[size])
        spent = [
            seconds_of(partial(peer.encode, texts, batch_size=best, show_progress_bar=False))
            for _ in range(given.rounds)
        ]
        peers[attention] = (statistics.median(spent), best)
        del peer
        torch.cuda.empty_cache()
    seconds = statistics.median(ours)
    fastest = min(seconds for seconds, _ in peers.values())
    row = {
        "model": name,
        "tokens": length,
        "documents": len(texts),
        "documents/s": round(len(texts) / seconds),
        "tokens/s": round(amount.sum() / seconds),
        "of peak": round(flops / seconds / given.peak / 1e12, 3),
        "tokenized before: tokens/s": round(amount.sum() / statistics.median(without)),
        "tokenized before: of peak": round(flops / statistics.median(without) / given.peak / 1e12, 3),
        "busy seconds": round(busy, 2),
        **{f"{kind} documents/s": round(len(texts) / spent) for kind, (spent, _) in peers.items()},
        **{f"{kind} batch": size for kind, (_, size) in peers.items()},
        "times the peer": round(fastest / seconds, 2),
        "attention": runtime["attention"],
    }
    print(json.dumps(row), flush=True)
    return [row]


def whole(place: Path, name: str, folder: Path, length: str, many: list[str]) -> dict[str, Any]:
    """A backfill from the start of reading to the last part, next to the encoder alone, tokenizing included."""
    from pipelines.backfill import backfill

    corpus = place / f"{name}-{length}.jsonl"
    with corpus.open("w") as lines:
        lines.writelines(json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(many))
    encoder = resolve(EncoderConfig(model=str(folder), precision="bfloat16")).load()
    tables(encoder, many[: 4 * TABLE])
    alone = seconds_of(partial(tables, encoder, many))
    del encoder
    row: dict[str, Any] = {
        "pipeline": name,
        "tokens": length,
        "documents": len(many),
        "encoder documents/s": round(len(many) / alone),
    }
    for workers in (1, 4):
        options = {} if workers == 1 else {"direct_num_workers": workers, "direct_running_mode": "multi_threading"}
        values = {
            "name": f"{name.replace('-', '_')}_{length}_{workers}",
            "corpus": {"paths": [str(corpus)], "content": ["text"], "shard_bytes": 2_000_000},
            "encoder": {"model": str(folder), "precision": "bfloat16"},
            "chunk": {"max_tokens": 512, "overlap_tokens": 0},
            "checkpoint": str(place / f"{name}-{length}-{workers}"),
            "collection": {"uri": str(place / f"{name}-{length}-{workers}.db"), "index": {"type": "FLAT"}},
            "batch_rows": TABLE,
            "runner": {"name": "local", **options},
        }
        report = backfill(parse_config(values, folder=place))
        spent = report.seconds
        # These steps run at once; the others come one after the other, before and after them.
        stage = spent.total - spent.startup - spent.survey - spent.load - spent.index - spent.verify
        row[f"{workers} threads documents/s"] = round(len(many) / stage)
        row[f"{workers} threads of the encoder's"] = round(alone / stage, 3)
        row[f"{workers} threads seconds"] = {step: round(value, 1) for step, value in spent if value}
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
