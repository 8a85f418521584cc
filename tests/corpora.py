"""Corpora and configurations that several test files write into a temporary folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from schemas.config import Config
from schemas.config.loader import load_config

WORDS = "ask bee cat dog elk fox gnu hen ibis jay kite lynx mole newt owl pig quail ram seal toad".split()  # noqa: SIM905


def text(number: int) -> str:
    """A text of five words and its number: different for each number."""
    return " ".join(WORDS[(number * 7 + place * (1 + number % 3)) % len(WORDS)] for place in range(5)) + f" {number}"


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_two(folder: Path, records: list[dict[str, Any]], first: int = 20) -> None:
    """Records as two files of a corpus, of which the first one has the `first` records."""
    write_jsonl(folder / "corpus" / "a.jsonl", records[:first])
    write_jsonl(folder / "corpus" / "b.jsonl", records[first:])


def texts_by_id(records: list[dict[str, Any]]) -> dict[str, str]:
    """The texts of records by their ids."""
    return {record["id"]: record["text"] for record in records}


def configure(folder: Path, **changes: Any) -> Config:
    """A configuration with the fake encoder and Milvus Lite; `changes` replace top-level keys."""
    values: dict[str, Any] = {
        "name": "tested",
        "corpus": {"paths": ["corpus/*"]},
        "encoder": {"model": "fake", "dimensions": 32},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db", "index": {"type": "HNSW", "M": 8, "efConstruction": 64}},
    }
    if "encoders" in changes:
        del values["encoder"]
    path = folder / "vecbeam.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return load_config(path)
