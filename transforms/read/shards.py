"""The corpus cut into shards: parts that one worker reads alone, named alike on every machine and in every run."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.config import Corpus
from transforms.read import streams
from transforms.read.formats import delimited, parquet
from transforms.read.listing import SourceFile

MAX_FILES = 1000
"""Most small files of one shard."""
Range = tuple[int, int]


@dataclass(frozen=True)
class Shard:
    """Some files of one format, or a range of one file.

    `index` is the position in corpus order. `start` and `end` are bytes [start, end) of one uncompressed JSONL or CSV
    file, or row groups of a Parquet file; 0 and 0 stand for all of each file.
    """

    name: str
    index: int
    files: tuple[SourceFile, ...]
    start: int
    end: int


def plan_shards(files: Sequence[SourceFile], corpus: Corpus) -> list[Shard]:
    """Splits large files and groups small ones, in corpus order; names are unique within the plan.

    JSONL is split without being read, CSV is read once, of Parquet the footer is read. A file that can't be read now
    stays whole: whoever reads the shard rejects it.

    Raises:
        CorpusError: where the storage fails.
    """
    shards: list[Shard] = []
    names: set[str] = set()
    for group, ranges in _groups(files, corpus.shard_bytes):
        for ordinal, (start, end) in enumerate(ranges):
            name = _name(group[0].path, ordinal, start, names)
            shards.append(Shard(name, len(shards), tuple(group), start, end))
    return shards


def _groups(files: Sequence[SourceFile], shard_bytes: int) -> Iterator[tuple[list[SourceFile], list[Range]]]:
    group: list[SourceFile] = []
    size = 0
    for file in files:
        ranges = _ranges(file, shard_bytes) if file.size > shard_bytes else []
        full = len(group) == MAX_FILES or size + file.size > shard_bytes
        if group and (full or len(ranges) > 1 or file.format != group[0].format):
            yield group, [(0, 0)]
            group, size = [], 0
        if len(ranges) > 1:
            yield [file], ranges
        else:
            group.append(file)
            size += file.size
    if group:
        yield group, [(0, 0)]


def _ranges(file: SourceFile, shard_bytes: int) -> list[Range]:
    if file.compression or file.format not in ("jsonl", "csv", "parquet"):
        return []
    if file.format == "jsonl":
        points = list(range(shard_bytes, file.size, shard_bytes))
        return list(zip([0, *points], [*points, file.size], strict=True))
    try:
        with streams.RawStream(file) as raw:
            if file.format == "parquet":
                return parquet.group_ranges(raw, shard_bytes)
            points = delimited.split_points(raw, file, shard_bytes)
            return list(zip([0, *points], [*points, file.size], strict=True))
    except streams.FileRejectedError:
        return []


def _name(path: str, ordinal: int, start: int, names: set[str]) -> str:
    """Such as docs-0000-1a2b3c4d. The same path under two globs is told apart by its turn."""
    stem = posixpath.basename(path).split(".")[0]
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:40] or "shard"
    for turn in range(len(names) + 1):
        identity = f"{path}\n{start}\n{turn}".encode("utf-8", "surrogatepass")
        name = f"{slug}-{ordinal:04d}-{hashlib.sha256(identity).hexdigest()[:8]}"
        if name not in names:
            break
    names.add(name)
    return name
