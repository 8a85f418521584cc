"""Parquet: only the columns that are needed, one row group at a time, in flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.config import Corpus
from schemas.locator import Cell
from transforms.read import decompression, stream
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.media_item import MEDIA, StoredBytes, checker_of, version_of_bytes
from transforms.read.open_file import OpenFile
from transforms.read.rejected_item import BadUtf8
from transforms.support.storage.parquet_bytes import PATH, bytes_column, is_binary, rows_at_once, type_of, values_of

ROWS_AT_ONCE = 1024


def read(opened: OpenFile, sink: BatchBuilder) -> Iterator[Batch]:
    """Reads row groups [start, end) of a file; 0 and 0 for all. A file without a row holds no item.

    A row group that is damaged costs its rows from there on, and one reject; the next group is read anyway.

    Raises:
        streams.FileRejectedError: `WrongSchema` where a column that the configuration needs is missing or of another
            type (said by the range that begins at 0 alone), or `DamagedFile` where nothing can be read.
    """
    raw, file, start, end = opened.raw, opened.file, opened.start, opened.end
    corpus = sink.corpus
    check = checker_of(corpus, file)
    with decompression.seekable(raw, file) as source:
        if not source.seek(0, 2):
            raise stream.FileRejectedError("DamagedFile", "The file holds 0 bytes, and no Parquet file does")
        source.seek(0)
        with damaged(raw):
            parquet = open_file(source)
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            try:
                columns = _needed_columns(parquet.schema_arrow, corpus)
            except stream.FileRejectedError:
                if start:
                    return
                raise
        has_bytes = bytes_column(parquet.schema_arrow, corpus.media) if corpus.media is not None else None
        for group in range(start, end or len(sizes)):
            row = sum(sizes[:group])
            records = _records(raw, parquet, group, columns)
            if has_bytes is not None and corpus.media is not None:
                records = _records_with_bytes(raw, parquet, group, columns, corpus.media, row)
            try:
                for record in records:
                    row += 1
                    place = f"row {row}"
                    yield from sink.item(check, record, place)
            except stream.FileRejectedError as error:
                if error is raw.failure:
                    raise error.after(f"row {row}" if row else "") from error
                if sink.reject(None, f"row {row + 1}", error.error, error.reason):
                    yield sink.take()


def open_file(source: BinaryIO | stream.RawStream) -> pq.ParquetFile:
    """A Parquet file that is read page by page, not a whole column at once."""
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=stream.BLOCK_BYTES)


def group_ranges(raw: stream.RawStream, step: int) -> list[tuple[int, int]]:
    """Ranges of row groups of at least `step` bytes as stored, except for the last. Reads the footer only.

    Raises:
        streams.FileRejectedError: `DamagedFile`.
    """
    with damaged(raw):
        metadata = open_file(raw).metadata
        ranges: list[tuple[int, int]] = []
        begin = size = 0
        for group in range(metadata.num_row_groups):
            stored = metadata.row_group(group)
            size += sum(stored.column(column).total_compressed_size for column in range(stored.num_columns))
            if size >= step or group == metadata.num_row_groups - 1:
                ranges.append((begin, group + 1))
                begin, size = group + 1, 0
        return ranges


@contextmanager
def damaged(raw: stream.RawStream) -> Iterator[None]:
    """Turns pyarrow's errors about a file's content into `DamagedFile`; errors of the storage stay unchanged."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if raw.failure is not None:
            raise raw.failure from error
        raise stream.FileRejectedError("DamagedFile", f"The file is not a whole Parquet file: {error}") from error


def _records(
    raw: stream.RawStream, parquet: pq.ParquetFile, group: int, columns: list[str]
) -> Iterator[dict[str, Any]]:
    with damaged(raw):
        batches = parquet.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False)
    while True:
        with damaged(raw):
            batch = next(batches, None)
            if batch is None:
                return
            columnsas_json = [as_json(column) for column in batch.columns]
            found = list(rows_of(pa.RecordBatch.from_arrays(columnsas_json, batch.schema.names)))
        yield from found


def _records_with_bytes(
    raw: stream.RawStream, parquet: pq.ParquetFile, group: int, columns: list[str], name: str, before: int
) -> Iterator[dict[str, Any]]:
    """The records of a group whose media are bytes in it, each with what `media_item.MEDIA` needs.

    Args:
        name: of the column with the bytes, or with structs of bytes and a path.
        before: rows of the file before the group.
    """
    column = bytes_column(parquet.schema_arrow, name)
    assert column is not None
    row = 0
    batches = parquet.iter_batches(
        rows_at_once(parquet, group, column), row_groups=[group], columns=columns, use_threads=False
    )
    while True:
        with damaged(raw):
            batch = next(batches, None)
            if batch is None:
                return
            values = values_of(batch, column)
            paths: list[Any] = [None] * batch.num_rows
            if column != name and type_of(batch.schema, f"{name}.{PATH}") is not None:
                paths = _values(as_json(values_of(batch, f"{name}.{PATH}")))
            others = [(field.name, _without_bytes(batch.column(field.name))) for field in batch.schema]
            kept = {key: as_json(found) for key, found in others if found is not None}
            records = list(rows_of(pa.RecordBatch.from_pydict(kept))) if kept else [{} for _ in paths]
        for value, path, record in zip(values, paths, records, strict=True):
            data = value.as_py()
            cell = Cell(group, row, column, before + row + 1)
            row += 1
            record[MEDIA] = path if data is None else StoredBytes(version_of_bytes(data), cell, len(data))
            yield record


def _without_bytes(column: pa.Array) -> pa.Array | None:
    """A column without its fields of bytes, which are not decoded as text; None if nothing is left."""
    if is_binary(column.type):
        return None
    if not pa.types.is_struct(column.type):
        return column
    fields = [(field.name, _without_bytes(child)) for field, child in zip(column.type, column.flatten(), strict=True)]
    kept = {name: child for name, child in fields if child is not None}
    return pa.StructArray.from_arrays(list(kept.values()), list(kept), mask=column.is_null()) if kept else None


def as_json(column: pa.Array) -> pa.Array:
    """A column with the types of JSON: dates and times as text of ISO 8601, binary columns as text.

    Text that is not UTF-8 stays as it is; `rows_of` finds it.
    """
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        return as_json(column.dictionary_decode())
    if types.is_struct(kind):
        children = [as_json(child) for child in column.flatten()]
        return pa.StructArray.from_arrays(children, [field.name for field in kind], mask=column.is_null())
    if types.is_temporal(kind) and not types.is_duration(kind) and not types.is_interval(kind):
        if types.is_timestamp(kind) and kind.tz:
            column = column.cast(pa.timestamp(kind.unit, "UTC"))  # which needs no table of time zones
        text = pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
        return pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")
    if types.is_float16(kind):
        return column.cast(pa.float32())
    if types.is_string_view(kind):
        return column.cast(pa.large_string())
    if is_binary(kind):
        # This does not check the bytes: to_pylist does.
        large = column.cast(pa.large_binary())
        return pa.Array.from_buffers(pa.large_string(), len(large), large.buffers(), large.null_count, large.offset)
    return column


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch as records; text that is not UTF-8 is a `BadUtf8`."""
    values = [_values(column) for column in batch.columns]
    for row in zip(*values, strict=True):
        yield dict(zip(batch.schema.names, row, strict=True))


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_struct(column.type):
        names = [field.name for field in column.type]
        rows = zip(*map(_values, column.flatten()), strict=True)
        there = column.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if valid else None for valid, row in zip(there, rows, strict=True)]
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_decoded(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | BadUtf8 | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        return BadUtf8(value or b"", error.start)


def _needed_columns(schema: pa.Schema, corpus: Corpus) -> list[str]:
    """The file's columns that the configuration names; a metadata column may be missing and is null then.

    A dotted name is a field of a struct; its other fields are not read.
    """
    hashed = not isinstance(corpus.id, str)
    wanted = dict.fromkeys(corpus.id_fields, "string, number or boolean" if hashed else "string or integer")
    wanted |= dict.fromkeys(corpus.embedded_fields, "text")
    media = bytes_column(schema, corpus.media) if corpus.media is not None else None
    if corpus.media is not None and media is not None:
        path = f"{corpus.media}.{PATH}"
        wanted.pop(corpus.media, None)
        wanted[media] = "text"
        if media != corpus.media and type_of(schema, path) is not None:
            wanted[path] = "text"
    required = set(wanted)
    for name, field in corpus.metadata.items():
        source = corpus.source_of(name)
        if source is not None:
            wanted.setdefault(source, field.type)
    columns = []
    for name, kind in wanted.items():
        types = _types_of(schema, name)
        if not types and name not in required:
            continue
        if len(types) != 1 or not _fits(types[0], kind):
            shown = "string" if kind == "text" else kind
            has = ", ".join(f"{field.name} {field.type}" for field in schema)
            column = "missing" if not types else "there more than once" if len(types) > 1 else "of another type"
            raise stream.FileRejectedError(
                "WrongSchema",
                f"Column {name!r} ({shown}) is {column}; the file has {has}",
            )
        columns.append(name)
    return columns


def _types_of(fields: pa.Schema | pa.StructType, name: str) -> list[pa.DataType]:
    """The types of the columns of a name, or of the struct's field that a dotted name means."""
    if positions := fields.get_all_field_indices(name):
        return [fields.field(position).type for position in positions]
    at = name.find(".")
    while at >= 0:
        for position in fields.get_all_field_indices(name[:at]):
            kind = fields.field(position).type
            if pa.types.is_struct(kind) and (found := _types_of(kind, name[at + 1 :])):
                return found
        at = name.find(".", at + 1)
    return []


def _fits(kind: pa.DataType, wanted: str) -> bool:
    """Whether a column's type may hold the values; each value is checked later."""
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_null(kind):
        return True
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or is_binary(kind)
    if text or wanted == "text":
        return bool(text)
    dated = types.is_temporal(kind) and not types.is_duration(kind) and not types.is_interval(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    fits: dict[str, Any] = {
        "string or integer": dated or types.is_integer(kind),
        "string, number or boolean": dated
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind),
        "string": dated or number or types.is_boolean(kind),
        "int": number,
        "float": number,
        "bool": number or types.is_boolean(kind),
    }
    return bool(fits[wanted])
