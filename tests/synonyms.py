"""Pairs of planted synonyms, which a small model without any knowledge learns."""

from __future__ import annotations

from pathlib import Path

from corpora import write_jsonl
from models import save_tokenizer

LEFT = [f"left{chr(97 + n)}" for n in range(12)]
RIGHT = [f"right{chr(97 + n)}" for n in range(12)]


def asked(n: int) -> str:
    """Three words: two queries differ by a word at least."""
    return " ".join(LEFT[one] for one in words(n))


def answer(n: int) -> str:
    """The synonyms of the words, none of which is in the query."""
    return " ".join(RIGHT[one] for one in words(n))


def words(n: int) -> list[int]:
    return [n % 12, (n + 1 + n // 12) % 12, (n * 5 + 7) % 12]


NUMBERS = list({tuple(sorted(words(n))): n for n in range(132)}.values())


def save_static(folder: Path) -> None:
    """A random vector of each word."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    save_tokenizer(folder.parent / "tokenizer", [*LEFT, *RIGHT])
    tokenizer = Tokenizer.from_file(str(folder.parent / "tokenizer" / "tokenizer.json"))
    torch.manual_seed(0)
    static = StaticEmbedding(tokenizer, embedding_dim=16)
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(folder))


def write_synonyms(folder: Path) -> None:
    """A small model in `base/whole`, pairs of synonyms in `pairs.jsonl`, and the answers in `corpus`."""
    save_static(folder / "base" / "whole")
    write_jsonl(folder / "pairs.jsonl", [{"query": asked(n), "positive": answer(n)} for n in NUMBERS])
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"d{n}", "text": answer(n)} for n in NUMBERS])
