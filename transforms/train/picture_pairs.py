"""Pairs of a text and an image file, for training a model of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import ConfigurationError
from transforms.support.storage.named_file import lines_of, read_named
from transforms.train.training_pairs import KEY, Pair, PairFile

SHAPE = '{"text": "...", "image": "photo.jpg"}'


@dataclass(frozen=True)
class PictureFile:
    """The pairs of a file.

    Attributes:
        file: its pairs; a positive is the SHA-256 of an image, hex: one image under two names is one.
        images: the path of each image, by that.
    """

    file: PairFile
    images: dict[str, Path]


def is_of_pictures(path: str) -> bool:
    """Whether the first line of a file of pairs names an image; False for what can't be read."""
    _, line = next(lines_of(read_named(path, KEY)), (0, b""))
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(record, dict) and "image" in record


def read_picture_pairs(path: str) -> PictureFile:
    """Reads JSON lines of a text and the path of an image, relative to the file.

    Raises:
        ConfigurationError: with the line, for what is not such a file, or an image that can't be read; if there are
            fewer than two different pairs.
    """
    data = read_named(path, KEY)
    pairs: dict[Pair, None] = {}
    images: dict[str, Path] = {}
    lines = 0
    for number, line in lines_of(data):
        lines += 1
        text, image = _record(line, f"{KEY}: {path}, line {number}")
        place = Path(path).parent / image
        try:
            digest = hashlib.sha256(place.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigurationError(
                f"{KEY}: {path}, line {number}: can't read the image {place}: {error.strerror}", "correct the path"
            ) from error
        images.setdefault(digest, place)
        pairs[Pair(text, digest)] = None
    if len(images) < 2 or len({pair.query for pair in pairs}) < 2:
        raise ConfigurationError(
            f"{KEY}: {path} has {len(images)} different images", "give at least some hundred pairs of both"
        )
    copies = lines - len(pairs)
    notes = [f"{copies:,} lines of {path} are copies of earlier ones: left out"] if copies else []
    return PictureFile(PairFile(path, hashlib.sha256(data).hexdigest(), list(pairs), notes=notes), images)


def _record(line: bytes, place: str) -> tuple[str, str]:
    try:
        record: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{place} is not valid JSON: {error}", f"write {SHAPE}") from None
    if not isinstance(record, dict):
        raise ConfigurationError(f"{place} is not a JSON object", f"write {SHAPE}")
    for name in ("text", "image"):
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise ConfigurationError(f"{place} has no {name}", f"write {SHAPE}")
    return record["text"], record["image"]
