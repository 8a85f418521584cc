"""Parquet files with facts of vecbeam in their metadata: written whole, read with a clear error where damaged."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import CheckpointError, SpaceMismatchError
from schemas.records import SCHEMA_VERSION
from transforms.support.storage import filesystem, spill
from transforms.support.storage.parquet_checksums import checked_footer, checked_writer, parquet_of
from transforms.support.storage.watched_file import damaged, opened, parsing

METADATA_KEY = b"vecbeam"
GROUP_BYTES = 1 << 20
_REPEATING = ("uri", "error", "step", "path", "place")

T = TypeVar("T")


def parquet(table: pa.Table, facts: Mapping[str, Any], row_group_rows: int = 65536) -> bytes:
    """A table as the bytes of a Parquet file, zstd, with `facts` as JSON in its metadata."""
    if any(pa.types.is_list(kind) and pa.types.is_list(kind.value_type) for kind in table.schema.types):
        # A search reads vectors of tokens of a few rows: small groups, so that it reads little else.
        row_group_rows = max(1, min(row_group_rows, table.num_rows * GROUP_BYTES // max(1, table.nbytes)))
    metadata = {METADATA_KEY: json.dumps(facts).encode()}
    buffer = io.BytesIO()
    with _writer(buffer, table.schema.with_metadata(metadata)) as writer:
        writer.write_table(table.replace_schema_metadata(metadata), row_group_rows)
    return buffer.getvalue()


def _writer(stream: BinaryIO, schema: pa.Schema) -> contextlib.AbstractContextManager[pq.ParquetWriter]:
    columns: Any = [name for name in schema.names if name in _REPEATING] or False
    return checked_writer(stream, schema, compression="zstd", use_dictionary=columns)


def write_table(uri: str, table: pa.Table) -> None:
    """Writes a table of the run's own bookkeeping as a Parquet file."""
    write_pieces(uri, spill.pieces(table), {"schema_version": SCHEMA_VERSION})


def write_pieces(
    uri: str,
    tables: Iterable[pa.Table],
    facts: Mapping[str, Any],
    row_group_rows: int = 65536,
    facts_at_end: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Writes a Parquet file as `parquet` makes it, of which one row group is in memory at a time.

    Args:
        tables: at least one, of one schema.
        facts_at_end: gives the facts once all rows were taken, in place of `facts`.
    """
    waiting = iter(tables)
    first = next(waiting)
    schema = first.schema.remove_metadata()

    def write(stream: BinaryIO) -> None:
        known = schema.with_metadata({METADATA_KEY: json.dumps(facts).encode()}) if facts_at_end is None else schema
        with _writer(stream, known) as writer:
            for group in spill.regrouped(chain([first], waiting), row_group_rows):
                writer.write_table(group.replace_schema_metadata(known.metadata), row_group_rows)
            if facts_at_end is not None:
                writer.add_key_value_metadata({METADATA_KEY.decode(): json.dumps(facts_at_end())})

    filesystem.write_stream(uri, write)


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, or some of its columns.

    Raises:
        CheckpointError: where the file is missing or damaged.
        StorageError: where the store fails; the file may well be sound.
    """
    return _parsed(uri, lambda stream: parquet_of(stream).read(columns=columns))


def read_spilled(uri: str, schema: pa.Schema) -> pa.Table:
    """A table of any number of rows, in a temporary file where it is large; see `spill`.

    A nullable column that a file of an earlier release does not have is null.

    Raises:
        CheckpointError: where the file is missing or damaged.
        StorageError: where the store fails; the file may well be sound.
    """

    def read(stream: Any) -> pa.Table:
        batches = parquet_of(stream).iter_batches(spill.ROWS)
        tables = (_with_absent(pa.Table.from_batches([batch]), schema).cast(schema) for batch in batches)
        return spill.spilled(tables, schema)

    return _parsed(uri, read)


def _with_absent(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names)


def read_rows(uri: str, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Some rows of a file, in the order given; only the row groups that have one are read.

    Raises:
        CheckpointError: where the file is missing or damaged.
        StorageError: where the store fails; the file may well be sound.
    """

    def read(stream: Any) -> pa.Table:
        file = parquet_of(stream)
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        wanted = np.asarray(rows, np.int64)
        groups, at = np.unique(np.searchsorted(ends, wanted, side="right"), return_inverse=True)
        counts = np.asarray(sizes, np.int64)[groups]
        # Where each row is among the groups that are read.
        places = wanted - (ends[groups] - counts)[at] + (np.cumsum(counts) - counts)[at]
        return file.read_row_groups(groups.tolist(), columns=list(columns)).take(pa.array(places))

    return _parsed(uri, read)


def read_schema(uri: str) -> pa.Schema:
    """The schema of a file.

    Raises:
        CheckpointError: where it is missing or damaged.
    """
    return _open_schema(uri)[0]


def null_columns(uri: str) -> set[str]:
    """Names of the columns that are null in each row of a file, by the statistics in its footer.

    Raises:
        CheckpointError: where it is missing or damaged.
        StorageError: where the store fails; the file may well be sound.
    """
    metadata = _parsed(uri, checked_footer).metadata
    found: set[str] | None = None
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        columns = [group.column(column) for column in range(group.num_columns)]
        nulls = {
            column.path_in_schema
            for column in columns
            if column.statistics is not None and column.statistics.null_count == group.num_rows
        }
        found = nulls if found is None else found & nulls
    return found or set()


def _open_schema(uri: str) -> tuple[pa.Schema, int]:
    def read(stream: Any) -> tuple[pa.Schema, int]:
        return parquet_of(stream).schema_arrow, stream.seek(0, io.SEEK_END)

    return _parsed(uri, read)


def read_footer(uri: str, space_id: str) -> tuple[dict[str, Any], int]:
    """The facts of a file of a space, and its size in bytes.

    Raises:
        SpaceMismatchError: where it is of another space.
    """
    schema, size = _open_schema(uri)
    found = facts_of(schema.metadata, uri)
    if found["space_id"] != space_id:
        raise SpaceMismatchError(
            f"{uri} is of space {found['space_id']}, its folder of space {space_id}", "move the file back where it was"
        )
    return found, size


class _Facts(dict[str, Any]):
    """The facts of a file. The footers of earlier releases have no checksum: a fact that is not there is a damage."""

    uri = ""

    def __missing__(self, key: str) -> Any:
        raise damaged(self.uri, KeyError(key))


def facts_of(metadata: Mapping[bytes, bytes] | None, uri: str) -> dict[str, Any]:
    """The facts in a file's metadata.

    Raises:
        CheckpointError: where it has none or a damaged one, or is of a newer schema version.
    """
    if not metadata or METADATA_KEY not in metadata:
        raise CheckpointError(f"{uri} is not a file of vecbeam", "move it out of the checkpoint")
    try:
        facts = _Facts(json.loads(metadata[METADATA_KEY]))
        facts.uri = uri
        newer = facts["schema_version"] > SCHEMA_VERSION
    except (ValueError, TypeError) as error:
        raise damaged(uri, error) from error
    if newer:
        raise CheckpointError(
            f"{uri} is of schema version {facts['schema_version']}, this vecbeam reads up to {SCHEMA_VERSION}",
            "install the vecbeam that wrote it, or a newer one",
        )
    return facts


def _parsed(uri: str, parse: Callable[[Any], T]) -> T:
    try:
        return _parsed_once(uri, parse)
    except CheckpointError:
        # A store that answers short looks like a damaged file, and the remedy for those is to delete them.
        if filesystem.is_local(uri):
            raise
        return _parsed_once(uri, parse)


def _parsed_once(uri: str, parse: Callable[[Any], T]) -> T:
    with opened(uri) as stream, parsing(uri, stream) as watched:
        return parse(watched)
