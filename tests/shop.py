"""A shop's products, each with a title, a description and a photo, for tests of several inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpora import configure

from schemas.config import Config

COUNT = 12
THINGS = ("red shoe", "green hat", "blue coat", "warm scarf", "rain boots", "leather belt")
TITLES = [f"{THINGS[number % 6]} size {number}" for number in range(COUNT)]
FIELDS = ("title", "description")
FAKE = {"model": "fake", "dimensions": 16}
MINILM = "all-MiniLM-L6-v2"


def products(photos: list[Path]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{number}",
            "title": TITLES[number],
            "description": f"It is item {number} of the catalogue." if number % 3 else None,
            "photo": f"photos/{path.name}",
            "price": 10 + number,
        }
        for number, path in enumerate(photos)
    ]


def shop(folder: Path, clip: Path, corpus: dict[str, Any] | None = None, **changes: Any) -> Config:
    named = {
        "paths": ["products.jsonl"],
        "content": list(FIELDS),
        "media": "photo",
        "metadata": {"price": "int"},
        **(corpus or {}),
    }
    encoders = {"title": {"model": MINILM, "input": ["title"]}, "photo": {"model": str(clip), "input": "media"}}
    values = {"corpus": named, "chunk": False, "encoders": encoders, "verify": {"max_rejected": 1.0}}
    return configure(folder, **(values | changes))
