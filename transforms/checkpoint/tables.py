"""Parquet files with facts of ours in their metadata: written whole, read with a clear error where they are damaged."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import CheckpointError, SpaceMismatchError
from schemas.records import SCHEMA_VERSION
from transforms import filesystem

METADATA_KEY = b"vecbeam"
_REPEATING = ("uri", "error", "step", "path", "place")


def parquet(table: pa.Table, facts: Mapping[str, Any]) -> bytes:
    """A table as the bytes of a Parquet file, zstd, with `facts` as JSON in its metadata."""
    metadata = {METADATA_KEY: json.dumps(facts).encode()}
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        buffer,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name in _REPEATING] or False,
        row_group_size=65536,
    )
    return buffer.getvalue()


def write_table(uri: str, table: pa.Table) -> None:
    """Writes a small table of the run's own bookkeeping as a Parquet file."""
    filesystem.write_atomic(uri, parquet(table, {"schema_version": SCHEMA_VERSION}))


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, or some of its columns.

    Raises:
        CheckpointError: where the file is missing or damaged.
    """
    try:
        with filesystem.open_binary(uri) as stream:
            return pq.ParquetFile(stream).read(columns=columns)
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        raise damaged(uri, error) from error


def read_schema(uri: str) -> pa.Schema:
    """The schema of a file.

    Raises:
        CheckpointError: where it is missing or damaged.
    """
    return _open_schema(uri)[0]


def _open_schema(uri: str) -> tuple[pa.Schema, int]:
    try:
        with filesystem.open_binary(uri) as stream:
            return pq.read_schema(stream), stream.seek(0, io.SEEK_END)
    except (pa.ArrowException, OSError) as error:
        raise damaged(uri, error) from error


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


def facts_of(metadata: Mapping[bytes, bytes] | None, uri: str) -> dict[str, Any]:
    """The facts in a file's metadata.

    Raises:
        CheckpointError: where it has none, or is of a newer schema version.
    """
    if not metadata or METADATA_KEY not in metadata:
        raise CheckpointError(f"{uri} is no file of vecbeam", "move it out of the checkpoint")
    facts: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    if facts["schema_version"] > SCHEMA_VERSION:
        raise CheckpointError(
            f"{uri} is of schema version {facts['schema_version']}, this vecbeam reads up to {SCHEMA_VERSION}",
            "install the vecbeam that wrote it, or a newer one",
        )
    return facts


def damaged(uri: str, error: Exception) -> CheckpointError:
    """The error of a file that can't be read."""
    return CheckpointError(
        f"can't read {uri}: {type(error).__name__}: {error}", "delete that file and run the same command again"
    )
