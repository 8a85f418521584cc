"""Arrow schemas of everything that travels or is stored, written down once.

The way of a batch: items -> chunks -> rows. A part is rows as one Parquet file.
"""

from __future__ import annotations

import enum
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
    """An item as read: `@content` is its whole text, `@place` where in the file it stands ("line 12").

    Columns that are no column of the collection begin with @, as no metadata field can.
    """
    return pa.schema(
        [
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("@uri", pa.string(), nullable=False),
            pa.field("@place", pa.string(), nullable=False),
            pa.field("@content", pa.string(), nullable=False),
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
    """A chunk on its way to the encoder: a row without its vector, with its token ids and the facts of its item."""
    rows = row_schema(metadata)
    fields = [rows.field(i) for i in range(len(rows)) if rows.field(i).name != "vector"]
    ids = pa.field(TOKEN_IDS, pa.list_(pa.field("element", pa.int32(), nullable=False)))
    return pa.schema([*fields, ids, *(item_facts().field(i) for i in range(len(item_facts())))])


TOKEN_IDS = "@token_ids"
"""Column of a chunk on its way to the encoder: its tokens as the chunker counted them, null where it kept none."""

SOURCE_ROW = "@source_row"
"""Column of a chunk on its way to the encoder: row of its source that has its vector, -1 where it is to be embedded."""


def item_facts() -> pa.Schema:
    """What a chunk carries of its item beside its row: where it stands, its digests, and where its vectors may lie.

    `@path` is the name of its file in the corpus. `@source` is the index of a part of the snapshot before,
    `@source_item` the position of an item there; -1 is none.
    """
    return pa.schema(
        [
            pa.field("@uri", pa.string(), nullable=False),
            pa.field("@place", pa.string(), nullable=False),
            pa.field("@path", pa.string(), nullable=False),
            pa.field("@digest", pa.binary(16), nullable=False),
            pa.field("@content_digest", pa.binary(16), nullable=False),
            pa.field("@kind", pa.int8(), nullable=False),
            pa.field("@source", pa.int32(), nullable=False),
            pa.field("@source_item", pa.int32(), nullable=False),
        ]
    )


ON_THE_WAY = frozenset([*item_facts().names, TOKEN_IDS, SOURCE_ROW])
"""Columns that a chunk has on its way to the encoder alone, and that are no part of its row."""

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

ERROR_COUNT = pa.struct([pa.field("error", pa.string()), pa.field("count", pa.int64())])

PART_SCHEMA = pa.schema(
    [
        # One row a part of a snapshot. Counts are of its live rows: those that are not in `dead`.
        pa.field("part", pa.string(), nullable=False),  # file name below parts/
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("items", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("tokens_dropped", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),  # of the file
        pa.field("dead", pa.list_(pa.int32()), nullable=False),  # rows of the file that are no longer the corpus
    ]
)

FILE_SCHEMA = pa.schema(
    [
        # One row a file of the corpus, in corpus order.
        pa.field("path", pa.string(), nullable=False),  # its name in the corpus, the same wherever that is moved
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.float64(), nullable=False),
        pa.field("items_read", pa.int64(), nullable=False),  # items and rejects
        pa.field("errors", pa.list_(ERROR_COUNT), nullable=False),  # rejects by error
        pa.field("rejects", pa.list_(pa.string()), nullable=False),  # file names below rejects/
        pa.field("complete", pa.bool_(), nullable=False),  # false: to be read again, whatever the listing says
    ]
)

ITEM_SCHEMA = pa.schema(
    [
        # Beside each part: one row an item, in the order of the part's rows. Digests are BLAKE2b, 128 bits.
        pa.field("key", pa.binary(16), nullable=False),  # of the item's id
        pa.field("digest", pa.binary(16), nullable=False),  # of its content, metadata, and the way it is chunked
        pa.field("content", pa.binary(16), nullable=False),  # of its content alone
        pa.field("path", pa.string(), nullable=False),  # file of the corpus
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("tokens_dropped", pa.int64(), nullable=False),
    ]
)


class Kind(enum.IntEnum):
    """What an item is to the snapshot before."""

    NEW = 0
    CHANGED = 1
    MOVED = 2  # its content stood under another id, which is gone
    RELOCATED = 3  # the same item in another file: its rows are written again, its vectors are not computed again
    UNCHANGED = 4


class ReadRecord(NamedTuple):
    """What was read for a batch; `files` holds (uri, items and rejects)."""

    key: Key
    files: tuple[tuple[str, int], ...]


class RejectRecord(NamedTuple):
    """A file of rejects of one batch and step; `errors` holds (uri, error, count)."""

    key: Key
    name: str
    errors: tuple[tuple[str, str, int], ...]


class PartRecord(NamedTuple):
    """A part as it lies in the checkpoint.

    `embedded` says whether this run made it, `rows_embedded` how many vectors it computed for it; `kinds` counts items
    by `Kind`.
    """

    key: Key
    name: str
    rows: int
    items: int
    tokens: int
    tokens_dropped: int
    tokens_padded: int
    bytes: int
    embedded: bool
    rows_embedded: int = 0
    tokens_embedded: int = 0
    kinds: tuple[int, int, int, int] = (0, 0, 0, 0)
    rejects: tuple[RejectRecord, ...] = ()
