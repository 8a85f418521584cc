"""Columns of bytes in Parquet files that other programs wrote: images and recordings, in order and in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.locator import Cell
from transforms.support.storage import filesystem

BYTES_AT_ONCE = 16 << 20
"""About how many bytes of a column are decoded at once."""
ROWS_AT_ONCE = 1024
BUFFER_BYTES = 1 << 20
BYTES, PATH = "bytes", "path"
"""Fields of the structs in which Hugging Face's datasets store media."""


def type_of(fields: pa.Schema | pa.StructType, name: str) -> pa.DataType | None:
    """The type of the column of a name, or of the struct's field that a dotted name means; None if there is not one."""
    if positions := fields.get_all_field_indices(name):
        return fields.field(positions[0]).type if len(positions) == 1 else None
    at = name.find(".")
    while at >= 0:
        for position in fields.get_all_field_indices(name[:at]):
            kind = fields.field(position).type
            if pa.types.is_struct(kind) and (found := type_of(kind, name[at + 1 :])) is not None:
                return found
        at = name.find(".", at + 1)
    return None


def is_binary(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes."""
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def bytes_column(schema: pa.Schema, name: str) -> str | None:
    """The column that has the bytes where a column has media: itself, or its field `bytes`; None if it has none."""
    kind = type_of(schema, name)
    if kind is None:
        return None
    if is_binary(kind):
        return name
    inside = type_of(kind, BYTES) if pa.types.is_struct(kind) else None
    return f"{name}.{BYTES}" if inside is not None and is_binary(inside) else None


def holds_all_bytes(uri: str, name: str) -> bool:
    """Whether no row of a file names a file elsewhere instead: its bytes are all that its items are. Reads the footer.

    False as well if the file can't be read.
    """
    try:
        with filesystem.open_binary(uri) as stream:
            file = pq.ParquetFile(stream, pre_buffer=False)
            column = bytes_column(file.schema_arrow, name)
            if column is None or column == name:
                return column is not None
            groups = (file.metadata.row_group(group) for group in range(file.num_row_groups))
            return all(_nulls(group, column) == 0 for group in groups)
    except (pa.ArrowException, OSError, ValueError):
        return False


def _nulls(group: Any, column: str) -> int | None:
    for at in range(group.num_columns):
        found = group.column(at)
        if found.path_in_schema == column:
            statistics = found.statistics
            return int(statistics.null_count) if statistics is not None and statistics.has_null_count else None
    return None


def rows_at_once(file: pq.ParquetFile, group: int, column: str) -> int:
    """How many rows of a group are decoded at once, by the size of their bytes."""
    found = file.metadata.row_group(group)
    columns = (found.column(at) for at in range(found.num_columns))
    size = sum(int(one.total_uncompressed_size) for one in columns if one.path_in_schema == column)
    return max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * int(found.num_rows) // max(1, size)))


def values_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The column of a name, or the field of a struct that a dotted name means."""
    if name in batch.schema.names:
        return batch.column(name)
    at = name.find(".")
    while at >= 0:
        if name[:at] in batch.schema.names and pa.types.is_struct(batch.column(name[:at]).type):
            return pc.struct_field(batch.column(name[:at]), name[at + 1 :].split("."))
        at = name.find(".", at + 1)
    raise KeyError(name)


class CellReader:
    """Reads cells of files. Those that follow one another are read in the order of the file, each once.

    Raises:
        OSError, pa.ArrowException: from `read`, if the file can't be read.
    """

    def __init__(self) -> None:
        self._stream: BinaryIO | None = None
        self._place: tuple[str, int, str] = ("", 0, "")
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._values: pa.Array = pa.array([], pa.binary())
        self._first = 0  # row in the group of the first of these values
        self._last: tuple[int, bytes] = (-1, b"")  # of several windows of one recording

    def __enter__(self) -> CellReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def read(self, uri: str, cell: Cell) -> bytes:
        """The bytes of a cell; b"" of one that is null."""
        if self._stream is None or self._place != (uri, cell.group, cell.column) or cell.row < self._first:
            self._open(uri, cell)
        while cell.row >= self._first + len(self._values):
            batch = next(self._batches, None)
            if batch is None:
                raise ValueError(f"the row group {cell.group} has {self._first + len(self._values)} rows")
            self._first += len(self._values)
            self._values = values_of(batch, cell.column)
        if self._last[0] != cell.row:
            self._last = (cell.row, self._values[cell.row - self._first].as_py() or b"")
        return self._last[1]

    def _open(self, uri: str, cell: Cell) -> None:
        self.__exit__()
        self._stream = filesystem.open_binary(uri)
        file = pq.ParquetFile(self._stream, pre_buffer=False, buffer_size=BUFFER_BYTES)
        self._batches = file.iter_batches(
            rows_at_once(file, cell.group, cell.column),
            row_groups=[cell.group],
            columns=[cell.column],
            use_threads=False,
        )
        self._place = (uri, cell.group, cell.column)
        self._values, self._first, self._last = pa.array([], pa.binary()), 0, (-1, b"")
