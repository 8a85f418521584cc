"""The corpus cut into shards: parts that one worker reads alone, named the same on every machine and in every run."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.config import Corpus
from schemas.formats import format_named
from transforms.read import stream
from transforms.read.formats import borders, charset, parquet
from transforms.read.listing.files import FILE_ROWS, FileRows, SourceFile
from transforms.support.storage.stored_table import StoredTable
from transforms.support.work_rows import WorkRows

MAX_FILES = 1000
"""Most small files of one shard."""
Range = tuple[int, int]


@dataclass(frozen=True)
class Shard:
    """Some files of one format, or a range of one file.

    `index` is the position in corpus order. `start` and `end` are bytes [start, end) of one uncompressed JSONL or CSV
    file, or row groups of a Parquet file; 0 and 0 stand for all of each file. `quoted` says whether quotes delimit
    fields in the CSV file that is split; None if the reader of it finds out. `names` and `positions` are, of each
    file, its name in the corpus and its row in the listing, where these are known.
    """

    name: str
    index: int
    files: tuple[SourceFile, ...]
    start: int
    end: int
    quoted: bool | None = None
    names: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ShardRange:
    """A shard as it travels: its files are `count` rows of the listing, from `first` on; see `Shard`."""

    name: str
    index: int
    first: int
    count: int
    start: int
    end: int
    quoted: bool | None = None


def _range_row(shard: ShardRange) -> dict[str, Any]:
    return vars(shard)


def _range_of(row: dict[str, Any]) -> ShardRange:
    return ShardRange(**row)


SHARD_RANGES = WorkRows(
    pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            *(pa.field(name, pa.int64(), nullable=False) for name in ("index", "first", "count", "start", "end")),
            pa.field("quoted", pa.bool_()),
        ]
    ),
    _range_row,
    _range_of,
)
"""How a `ShardRange` travels."""

TO_READ = pa.schema(
    [
        # The files that a run reads, in corpus order, as stored.
        *FILE_ROWS,
        pa.field("name", pa.large_string(), nullable=False),  # in the corpus, unique
        pa.field("position", pa.int64(), nullable=False),  # in the listing
    ]
)


class ShardFiles:
    """Finds the files of a shard in the store; each worker has its own, and holds some rows at a time.

    Args:
        uri: table of `TO_READ`, written by `transforms.checkpoint.write_rows`.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._table: StoredTable | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_uri": self._uri, "_table": None}

    def open(self, shard: ShardRange | Shard) -> Shard:
        """The shard with its files.

        Raises:
            CheckpointError: if the table is missing or damaged.
        """
        if isinstance(shard, Shard):
            return shard
        if self._table is None:
            self._table = StoredTable(self._uri)
        rows = self._table.rows(shard.first, shard.count)
        names, positions = (tuple(rows.column(name).to_pylist()) for name in ("name", "position"))
        files = tuple(FileRows(rows))
        return Shard(shard.name, shard.index, files, shard.start, shard.end, shard.quoted, names, positions)


def plan_ranges(
    files: Iterable[SourceFile], corpus: Corpus, *, block_bytes: int = stream.BLOCK_BYTES
) -> Iterator[ShardRange]:
    """Splits large files and groups small ones, in corpus order; names are unique within the plan.

    JSONL is split without being read, CSV is read once, of Parquet the footer is read. A file that can't be read now
    stays whole: the reader of the shard rejects it.

    Args:
        block_bytes: what is read at once.

    Raises:
        CorpusError: if the storage fails.
    """
    names: set[str] = set()
    index = first = 0
    for group, ranges, quoted in _groups(files, corpus, block_bytes):
        for ordinal, (start, end) in enumerate(ranges):
            name = _name(group[0].path, ordinal, start, names)
            yield ShardRange(name, index, first, len(group), start, end, quoted)
            index += 1
        first += len(group)


def plan_shards(files: Sequence[SourceFile], corpus: Corpus, *, block_bytes: int = stream.BLOCK_BYTES) -> list[Shard]:
    """The shards of `plan_ranges` with their files: for a corpus that is known to be small."""
    return [
        Shard(one.name, one.index, tuple(files[one.first : one.first + one.count]), one.start, one.end, one.quoted)
        for one in plan_ranges(files, corpus, block_bytes=block_bytes)
    ]


def _groups(
    files: Iterable[SourceFile], corpus: Corpus, block_bytes: int
) -> Iterator[tuple[list[SourceFile], list[Range], bool | None]]:
    group: list[SourceFile] = []
    size = 0
    for file in files:
        ranges, quoted = _ranges(file, corpus, block_bytes) if file.size > corpus.shard_bytes else ([], None)
        full = len(group) == MAX_FILES or size + file.size > corpus.shard_bytes
        if group and (full or len(ranges) > 1 or file.format != group[0].format):
            yield group, [(0, 0)], None
            group, size = [], 0
        if len(ranges) > 1:
            yield [file], ranges, quoted
        else:
            group.append(file)
            size += file.size
    if group:
        yield group, [(0, 0)], None


def _ranges(file: SourceFile, corpus: Corpus, block_bytes: int) -> tuple[list[Range], bool | None]:
    """Ranges of a file, and for CSV whether its quotes delimit fields."""
    if file.compression or not _is_splittable(file.format):
        return [], None
    if file.format == "jsonl":
        if not charset.is_splittable(charset.of_file(b"", corpus.encoding)):
            return [], None
        points = list(range(corpus.shard_bytes, file.size, corpus.shard_bytes))
        return list(zip([0, *points], [*points, file.size], strict=True)), None
    try:
        with stream.RawStream(file, block_bytes) as raw:
            if file.format == "parquet":
                return parquet.group_ranges(raw, corpus.shard_bytes), None
            points, quoted = borders.split_points(raw, file, corpus)
            return list(zip([0, *points], [*points, file.size], strict=True)), quoted
    except stream.FileRejectedError:
        return [], None


def _is_splittable(name: str) -> bool:
    one = format_named(name)
    return one is not None and one.splittable


def _name(path: str, ordinal: int, start: int, names: set[str]) -> str:
    """Such as docs-0000-1a2b3c4d. The position distinguishes the same path under two globs."""
    stem = posixpath.basename(path).split(".")[0]
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:40] or "shard"
    for turn in range(len(names) + 1):
        identity = f"{path}\n{start}\n{turn}".encode("utf-8", "surrogatepass")
        name = f"{slug}-{ordinal:04d}-{hashlib.sha256(identity).hexdigest()[:8]}"
        if name not in names:
            break
    names.add(name)
    return name
