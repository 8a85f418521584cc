"""The files of a corpus as an Arrow table: ten million of them are not Python objects, and are on disk.

Names are bytes: UTF-8 in which each byte of a name that is not valid UTF-8 is a lone surrogate, as in Python. So they
sort as the text does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import pyarrow as pa
import pyarrow.compute as pc

from schemas.formats import suffixes
from transforms.support.storage import filesystem, spill

FILE_ROWS = pa.schema(
    [
        pa.field("uri", pa.large_binary(), nullable=False),
        pa.field("path", pa.large_binary(), nullable=False),  # under its glob's root
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.float64(), nullable=False),
        pa.field(
            "kind", pa.string(), nullable=False
        ),  # format and compression with a space between: "csv gzip", "csv "
        pa.field("version", pa.string(), nullable=False),  # the ETag or generation in an object store, or ""
    ]
)


@dataclass(frozen=True)
class SourceFile:
    """A file of the corpus.

    `path` is relative to its glob's root, with forward slashes, so it stays the same if the corpus moves; `size` is
    bytes as stored; `modified` is seconds since the epoch; `compression` is "", gzip, zstd, bzip2 or xz; `version` is
    the ETag or generation in an object store, or "".
    """

    uri: str
    path: str
    size: int
    modified: float
    format: str
    compression: str
    version: str = ""

    @property
    def shown(self) -> str:
        """The uri as valid text; see `transforms.support.storage.filesystem.as_text`."""
        return filesystem.as_text(self.uri)

    @property
    def name(self) -> str:
        """The path as valid text: the id of a file that is an item."""
        return filesystem.as_text(self.path)

    @property
    def delimiter(self) -> str:
        """The delimiter of a CSV file: a tab where the suffix is .tsv."""
        return "\t" if suffixes(self.path)[0] == ".tsv" else ","


class FileRows(Sequence[SourceFile]):
    """Rows of a table with the columns of `FILE_ROWS`; each becomes an object on access."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[SourceFile]:
        for piece in spill.pieces(self.table):
            yield from _objects(piece)

    def kinds(self) -> list[tuple[str, str]]:
        """Format and compression of the files, each pair once."""
        return [_kind(kind) for kind in self.table.column("kind").unique().to_pylist()]

    @overload
    def __getitem__(self, at: int) -> SourceFile: ...

    @overload
    def __getitem__(self, at: slice) -> list[SourceFile]: ...

    def __getitem__(self, at: int | slice) -> SourceFile | list[SourceFile]:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            return _objects(self.table.slice(start, max(0, stop - start)))[::step]
        return _objects(self.table.slice(range(len(self))[at], 1))[0]


def _objects(table: pa.Table) -> list[SourceFile]:
    columns = (table.column(name).to_pylist() for name in ("uri", "path", "size", "modified", "kind", "version"))
    return [
        SourceFile(name_of(uri), name_of(path), size, modified, *_kind(kind), version)
        for uri, path, size, modified, kind, version in zip(*columns, strict=True)
    ]


def _kind(kind: str) -> tuple[str, str]:
    format, _, compression = kind.partition(" ")
    return format, compression


def name_bytes(text: str) -> bytes:
    """A name as it is in a table."""
    return text.encode("utf-8", "surrogatepass")


def name_of(name: bytes) -> str:
    """The inverse of `name_bytes`."""
    return name.decode("utf-8", "surrogatepass")


def shown_column(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of names as valid text."""
    return pa.chunked_array([_shown(chunk) for chunk in names.chunks], pa.large_string())


def _shown(names: pa.Array) -> pa.Array:
    try:
        texts = names.cast(pa.large_string())
        if not pc.any(pc.match_substring(texts, "\\udc", ignore_case=True)).as_py():
            return texts
    except pa.ArrowInvalid:  # a name that is not valid UTF-8
        pass
    return pa.array([filesystem.as_text(name_of(name)) for name in names.to_pylist()], pa.large_string())
