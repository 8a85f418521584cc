"""Small pictures of the rows of a part, in a file of the part's name: a row each, in the part's order."""

from __future__ import annotations

import pyarrow as pa

from schemas.records import SCHEMA_VERSION
from transforms.checkpoint.folder import Checkpoint
from transforms.checkpoint.snapshot import LivePart
from transforms.support.storage import filesystem
from transforms.support.storage.parquet_file import parquet, read_rows, read_table

FOLDER = "thumbnails"
COLUMN = "thumbnail"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the row
        pa.field(COLUMN, pa.binary()),  # a WebP file; null where there is nothing to show
    ]
)
_GROUP_ROWS = 64
"""Of a row group, which is the least that is read: about 200 kB."""


def thumbnails_uri(checkpoint: Checkpoint, name: str) -> str:
    """Where the pictures of a part are."""
    return filesystem.join(checkpoint.root, checkpoint.space_id, FOLDER, name)


def thumbnail_names(checkpoint: Checkpoint) -> set[str]:
    """The parts of which there are pictures."""
    files = filesystem.list_files(filesystem.join(checkpoint.root, checkpoint.space_id, FOLDER), "*.parquet")
    return {file.uri.rsplit("/", 1)[-1] for file in files}


def has_thumbnails(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a part has pictures."""
    return filesystem.exists(thumbnails_uri(checkpoint, name))


def write_thumbnails(checkpoint: Checkpoint, name: str, thumbnails: pa.Table) -> None:
    """Writes the pictures of a part: before the part itself, so that one that exists is complete.

    Args:
        thumbnails: table of `SCHEMA`.
    """
    facts = {"schema_version": SCHEMA_VERSION, "space_id": checkpoint.space_id, "rows": thumbnails.num_rows}
    filesystem.write_atomic(thumbnails_uri(checkpoint, name), parquet(thumbnails, facts, _GROUP_ROWS))


def read_thumbnails(checkpoint: Checkpoint, part: LivePart) -> pa.Table:
    """The pictures of the live rows of a part, a table of `SCHEMA`."""
    table = read_table(thumbnails_uri(checkpoint, part.name))
    return part.keep(table.replace_schema_metadata())


def without_pictures(rows: pa.Table) -> pa.Table:
    """A table of `SCHEMA` for rows that have no pictures."""
    return pa.table({"id": rows.column("id"), COLUMN: pa.nulls(rows.num_rows, pa.binary())}, schema=SCHEMA)


def read_thumbnail(checkpoint: Checkpoint, name: str, row: int) -> bytes | None:
    """The picture of one row of a part."""
    found: bytes | None = read_rows(thumbnails_uri(checkpoint, name), [row], [COLUMN]).column(COLUMN)[0].as_py()
    return found
