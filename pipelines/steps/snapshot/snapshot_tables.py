"""The parts and files of a new snapshot: those of the old one as far as they count, and the new ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.steps.corpus.changes import Changes
from pipelines.steps.corpus.source import Source
from schemas.records import FILE_SCHEMA, PART_SCHEMA
from transforms.checkpoint.snapshot import with_any
from transforms.embed.record import FILE_RECORDS
from transforms.read import CONTAINER_ERRORS
from transforms.read.listing.files import shown_column
from transforms.support.storage import spill

_LISTED = ["size", "modified", "version"]
_URI = pa.schema([pa.field("uri", pa.large_string())])


def parts_of(changes: Changes, parts: pa.Table) -> pa.Table:
    """The parts of the new snapshot, a table of `PART_SCHEMA`: those of the old one, less what is dead, and new ones.

    Args:
        parts: table of `transforms.embed.record.PART_RECORDS`, of this run.
    """
    new = parts.filter(pc.greater(parts.column("rows"), 0))
    none = pa.array([[]] * new.num_rows, pa.list_(pa.int32()))
    tables = [new.append_column("dead", none).select(PART_SCHEMA.names).cast(PART_SCHEMA)]
    if changes.base is not None:
        tables.insert(0, _less(changes.base.parts, changes.findings.dead, set(changes.lost)))
    return pa.concat_tables(tables)


def _less(parts: pa.Table, dead: pa.Table, lost: set[int]) -> pa.Table:
    rows = parts.to_pylist()
    for gone in dead.to_pylist():
        row = rows[gone["part"]]
        row["dead"] = sorted({*row["dead"], *gone["dead"]})
        row["rows"] -= len(gone["dead"])
        for name in ("items", "tokens", "tokens_dropped"):
            row[name] -= gone[name]
    live = [row for at, row in enumerate(rows) if at not in lost and row["rows"] > 0]
    return pa.Table.from_pylist(live, schema=PART_SCHEMA)


def files_of(changes: Changes, records: pa.Table, is_settled: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Table:
    """The files of the new snapshot, a table of `FILE_SCHEMA`, in corpus order.

    Args:
        records: table of `transforms.embed.record.FILE_RECORDS`, of this run.
        is_settled: whether each file is still as it was listed, bool[n].
    """
    source = changes.source
    is_read = source.is_read.to_numpy()
    read = _files_read(source, records, is_settled[is_read], changes.findings.spared(), np.flatnonzero(is_read))
    if is_read.all() or changes.base is None:
        return read
    listed = spill.filtered(source.files.select(["name", *_LISTED]), ~is_read).rename_columns(["path", *_LISTED])
    return spill.interleaved(read, spill.spilled(_files_kept(listed, changes.base.files), FILE_SCHEMA), is_read)


def _files_kept(listed: pa.Table, before: pa.Table) -> Iterator[pa.Table]:
    """The rows that files have in a snapshot, with what the listing says of them now."""
    names = listed.select(["path"])
    for now, then in zip(spill.pieces(listed), spill.beside(names, before, "path"), strict=True):
        columns = {name: then.column(name) for name in FILE_SCHEMA.names}
        columns |= {name: now.column(name) for name in _LISTED}
        columns["version"] = _or_null(now.column("version"))
        yield pa.table(columns).cast(FILE_SCHEMA)


def _or_null(versions: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(versions, ""), None, versions)


def _files_read(
    source: Source,
    records: pa.Table,
    is_settled: np.ndarray[Any, np.dtype[np.bool_]],
    spared: dict[int, int],
    positions: np.ndarray[Any, np.dtype[np.int64]],
) -> pa.Table:
    files = source.changed.table
    shown = (pa.table([shown_column(piece.column("uri"))], _URI) for piece in spill.pieces(files.select(["uri"])))
    uris = spill.spilled(shown, _URI)
    rejected = with_any(records, "errors").select(["uri", "errors"]).to_pylist()
    names = [row["uri"] for row in rejected if any(error["error"] in CONTAINER_ERRORS for error in row["errors"])]
    broken = pa.array(names, _URI.field("uri").type)

    def tables() -> Iterator[pa.Table]:
        found = spill.beside(uris, records.select(FILE_RECORDS.names), "uri")
        start = 0
        for piece, uri, record in zip(spill.pieces(files), spill.pieces(uris), found, strict=True):
            here = slice(start, start + piece.num_rows)
            read = pc.fill_null(record.column("items_read"), 0).to_numpy().copy()
            if spared:
                read += np.array([spared.get(int(position), 0) for position in positions[here]], np.int64)
            whole = pc.invert(pc.is_in(uri.column("uri"), value_set=broken))
            columns = {
                "path": piece.column("name").cast(pa.string()),
                "size": piece.column("size"),
                "modified": piece.column("modified"),
                "items_read": read,
                **{name: _or_empty(record.column(name)) for name in ("errors", "rejects")},
                "complete": pc.and_(whole, pa.array(is_settled[here])),
                "version": _or_null(piece.column("version")),
            }
            yield pa.table(columns, schema=FILE_SCHEMA)
            start = here.stop

    return spill.spilled(tables(), FILE_SCHEMA)


def _or_empty(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists, and an empty one instead of each null."""
    return pc.if_else(pc.is_valid(lists), lists, pa.scalar([], lists.type)) if lists.null_count else lists
