"""Arrow schemas of everything that travels or is stored, written down once.

The way of a batch: items -> chunks -> rows. A part is rows as one Parquet file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the checkpoint's format; a newer one than this is refused."""

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


class Key(NamedTuple):
    """Names a batch: the shard that it was read from and its ordinal in there.

    >>> Key("docs-0000", 3)
    Key(shard='docs-0000', ordinal=3)
    """

    shard: str
    ordinal: int


def metadata_fields(metadata: Mapping[str, str]) -> list[pa.Field]:
    """Arrow fields of metadata columns, from name -> string, int, float or bool."""
    return [pa.field(name, ARROW_TYPES[kind]) for name, kind in metadata.items()]


def item_schema(metadata: Mapping[str, str]) -> pa.Schema:
    """An item as read: `content` is its whole text, `place` where in the file it stands ("line 12")."""
    return pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("place", pa.string(), nullable=False),
            pa.field("content", pa.string(), nullable=False),
            *metadata_fields(metadata),
        ]
    )


def row_schema(metadata: Mapping[str, str]) -> pa.Schema:
    """A row of a part, and of a collection: the same columns in both."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("chunk", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("start", pa.int64(), nullable=False),
            pa.field("end", pa.int64(), nullable=False),
            pa.field("content_hash", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
            pa.field("tokens", pa.int64(), nullable=False),
            pa.field("tokens_dropped", pa.int64(), nullable=False),
            *metadata_fields(metadata),
        ]
    )


def chunk_schema(metadata: Mapping[str, str]) -> pa.Schema:
    """A chunk on its way to the encoder: a row without its vector, with its item's `uri` and `place`."""
    rows = row_schema(metadata)
    fields = [rows.field(i) for i in range(len(rows)) if rows.field(i).name != "vector"]
    return pa.schema([*fields, pa.field("uri", pa.string()), pa.field("place", pa.string())])


REJECT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),  # null where the item's id could not be read
        pa.field("uri", pa.string(), nullable=False),
        pa.field("place", pa.string(), nullable=False),  # "line 12", "row 7", "byte 1048576", or ""
        pa.field("step", pa.string(), nullable=False),  # read, chunk, embed
        pa.field("error", pa.string(), nullable=False),  # short and countable: InvalidJson, EmptyText, ...
        pa.field("reason", pa.string(), nullable=False),  # one sentence with the value
    ]
)

SOURCE_FILE = pa.struct(
    [pa.field("path", pa.string()), pa.field("size", pa.int64()), pa.field("modified", pa.float64())]
)
ERROR_COUNT = pa.struct([pa.field("error", pa.string()), pa.field("count", pa.int64())])

BATCH_SCHEMA = pa.schema(
    [
        # One row a batch: a snapshot is these, in corpus order.
        pa.field("shard", pa.string(), nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("part", pa.string()),  # file name below parts/
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("items", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("tokens_dropped", pa.int64(), nullable=False),
        pa.field("tokens_padded", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),  # of the part
        pa.field("embedded", pa.bool_(), nullable=False),  # by this run; false where an earlier one had done it
        pa.field("items_read", pa.int64(), nullable=False),
        pa.field("bytes_read", pa.int64(), nullable=False),
        pa.field("errors", pa.list_(ERROR_COUNT), nullable=False),  # rejects by error
        pa.field("rejects", pa.list_(pa.string()), nullable=False),  # file names below rejects/
        pa.field("files", pa.list_(SOURCE_FILE), nullable=False),  # of the shard; only with ordinal 0
    ]
)


class ReadRecord(NamedTuple):
    """What was read for a batch."""

    key: Key
    items_read: int
    bytes_read: int
    files: tuple[tuple[str, int, float], ...]


class RejectRecord(NamedTuple):
    """A file of rejects of one batch and step; `errors` holds (error, count)."""

    key: Key
    name: str
    errors: tuple[tuple[str, int], ...]


class PartRecord(NamedTuple):
    """A part as it lies in the checkpoint; `embedded` says whether this run made it."""

    key: Key
    name: str
    rows: int
    items: int
    tokens: int
    tokens_dropped: int
    tokens_padded: int
    bytes: int
    embedded: bool
    rejects: tuple[RejectRecord, ...] = ()
