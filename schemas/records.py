"""Arrow schemas of everything that is stored in addition to rows, and the records of what was done.

The way of a batch: items -> chunks -> rows (`schemas.layout`). A part is rows as one Parquet file.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import pyarrow as pa

SCHEMA_VERSION = 1
"""Version of the checkpoint's format; a newer one than this is refused."""


class Key(NamedTuple):
    """Names a batch: the shard that it was read from and its ordinal in the shard.

    >>> Key("docs-0000", 3)
    Key(shard='docs-0000', ordinal=3)
    """

    shard: str
    ordinal: int


REJECT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),  # null if the item's id could not be read
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
        # One row per part of a snapshot. Counts are of its live rows: those that are not in `dead`.
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
        # One row per file of the corpus, in corpus order.
        pa.field("path", pa.string(), nullable=False),  # its name in the corpus, the same wherever that is moved
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.float64(), nullable=False),
        pa.field("items_read", pa.int64(), nullable=False),  # items and rejects
        pa.field("errors", pa.list_(ERROR_COUNT), nullable=False),  # rejects by error
        pa.field("rejects", pa.list_(pa.string()), nullable=False),  # file names below rejects/
        pa.field("complete", pa.bool_(), nullable=False),  # false: to be read again, whatever the listing says
        # The ETag or generation in an object store; null where there is none, as in files of earlier releases.
        pa.field("version", pa.string()),
    ]
)

ITEM_SCHEMA = pa.schema(
    [
        # A file for each part: one row per item, in the order of the part's rows. Digests are BLAKE2b, 128 bits.
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
    """How an item relates to the previous snapshot."""

    NEW = 0
    CHANGED = 1
    MOVED = 2  # its content was under another id, which no longer exists
    RELOCATED = 3  # the same item in another file: its rows are written again, its vectors are not computed again
    UNCHANGED = 4


class ReadRecord(NamedTuple):
    """Record of the read step for a batch; `files` holds (uri, items and rejects)."""

    key: Key
    files: tuple[tuple[str, int], ...]


class RejectRecord(NamedTuple):
    """A file of rejects of one batch and step; `errors` holds (uri, error, count)."""

    key: Key
    name: str
    errors: tuple[tuple[str, str, int], ...]


class PartRecord(NamedTuple):
    """A part in the checkpoint.

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
