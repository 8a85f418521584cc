"""What the fused stage did, as two small tables: one row per part and one row per file of the corpus."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import ERROR_COUNT, Kind, PartRecord, ReadRecord, RejectRecord
from transforms.support.storage import filesystem, spill
from transforms.support.storage.parquet_file import read_table

_KINDS = tuple(kind.name.lower() for kind in Kind if kind is not Kind.UNCHANGED)

PART_RECORDS = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int64(), nullable=False)
            for name in ("rows", "items", "tokens", "tokens_dropped", "tokens_padded", "bytes")
        ),
        pa.field("embedded", pa.bool_(), nullable=False),  # by this run; false if an earlier one had done it
        pa.field("rows_embedded", pa.int64(), nullable=False),
        pa.field("tokens_embedded", pa.int64(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in _KINDS),
    ]
)
FILE_RECORDS = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("items_read", pa.int64(), nullable=False),  # items and rejects
        pa.field("errors", pa.list_(ERROR_COUNT), nullable=False),  # rejects by error
        pa.field("rejects", pa.list_(pa.string()), nullable=False),  # file names below rejects/
    ]
)

WORK_OF_A_PIECE = 1_024

_COUNTS = pa.schema([FILE_RECORDS.field("uri"), FILE_RECORDS.field("items_read")])


def pieces_of(work: int) -> int:
    """How many files the records of some work (shards, merges) are written into."""
    return 1 + work // WORK_OF_A_PIECE


def in_pieces(
    record: ReadRecord | RejectRecord | PartRecord, pieces: int
) -> Iterator[tuple[int, ReadRecord | RejectRecord | PartRecord]]:
    """A record as records of pieces: all that concerns a file of the corpus is in one of them."""
    if isinstance(record, PartRecord):
        yield _piece(record.name, pieces), record._replace(rejects=())
        return
    entries: tuple[tuple[Any, ...], ...] = record.files if isinstance(record, ReadRecord) else record.errors
    by_piece: dict[int, list[Any]] = {}
    for entry in entries:
        by_piece.setdefault(_piece(entry[0], pieces), []).append(entry)
    for piece, some in by_piece.items():
        if isinstance(record, ReadRecord):
            yield piece, record._replace(files=tuple(some))
        else:
            yield piece, record._replace(errors=tuple(some))


def _piece(name: str, pieces: int) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % pieces


def read_records(folder: str) -> tuple[pa.Table, pa.Table]:
    """What `WriteRecords` wrote, and deletes it; both are empty if there was no record.

    Returns:
        Tables of `PART_RECORDS`, by shard and ordinal, and of `FILE_RECORDS`, by uri.
    """
    names = {name: filesystem.list_files(folder, f"{name}/*.parquet") for name in ("parts", "files")}
    parts = [read_table(file.uri) for file in names["parts"]]
    pieces = (read_table(file.uri) for file in names["files"])
    files = spill.spilled(spill.sorted_pieces(pieces, ["uri"]), FILE_RECORDS)
    filesystem.delete_folder(folder)
    order = [("shard", "ascending"), ("ordinal", "ascending")]
    return pa.concat_tables([PART_RECORDS.empty_table(), *parts]).sort_by(order), files


def record_tables(records: Iterable[ReadRecord | RejectRecord | PartRecord]) -> tuple[pa.Table, pa.Table]:
    """Records of all steps, merged.

    Returns:
        Tables of `PART_RECORDS`, by shard and ordinal, and of `FILE_RECORDS`, by uri.
    """
    parts: list[dict[str, Any]] = []
    errors: dict[str, dict[str, int]] = {}
    rejects: dict[str, set[str]] = {}

    def read() -> Iterator[tuple[str, int]]:
        for record in records:
            if isinstance(record, ReadRecord):
                yield from record.files
            elif isinstance(record, RejectRecord):
                for uri, error, count in record.errors:
                    yield uri, 0
                    of_file = errors.setdefault(uri, {})
                    of_file[error] = of_file.get(error, 0) + count
                    rejects.setdefault(uri, set()).add(record.name)
            else:
                parts.append(_part_row(record))

    by_uri = spill.sorted_pieces(spill.in_chunks(read(), _COUNTS), ["uri"])
    counted = spill.spilled(map(_summed, by_uri), _COUNTS)
    rejected = _rejected(errors, rejects)
    files = spill.spilled((_with_rejects(piece, rejected) for piece in spill.pieces(counted)), FILE_RECORDS)
    parts.sort(key=lambda row: (row["shard"], row["ordinal"]))
    return pa.Table.from_pylist(parts, schema=PART_RECORDS), files


def _summed(counts: pa.Table) -> pa.Table:
    """A table of `_COUNTS` with each uri once."""
    summed = counts.group_by("uri").aggregate([("items_read", "sum")]).sort_by("uri")
    return pa.table([summed.column("uri"), summed.column("items_read_sum")], schema=_COUNTS)


def _rejected(errors: dict[str, dict[str, int]], rejects: dict[str, set[str]]) -> pa.Table:
    """Table of `FILE_RECORDS` of the files with rejects, and a last row of nothing."""
    named = [
        {
            "uri": uri,
            "items_read": 0,
            "errors": [{"error": error, "count": count} for error, count in sorted(errors[uri].items())],
            "rejects": sorted(rejects[uri]),
        }
        for uri in sorted(errors)
    ]
    nothing = {"uri": "", "items_read": 0, "errors": [], "rejects": []}
    return pa.Table.from_pylist([*named, nothing], schema=FILE_RECORDS)


def _with_rejects(counted: pa.Table, rejected: pa.Table) -> pa.Table:
    nothing = rejected.num_rows - 1
    at = pc.index_in(counted.column("uri"), value_set=rejected.column("uri").slice(0, nothing))
    rows = rejected.take(pc.fill_null(at, nothing))
    return pa.table([*counted.columns, rows.column("errors"), rows.column("rejects")], schema=FILE_RECORDS)


def _part_row(record: PartRecord) -> dict[str, Any]:
    facts = record._asdict()
    row = {name: facts[name] for name in PART_RECORDS.names if name in facts}
    return {**row, **record.key._asdict(), "part": record.name, **dict(zip(_KINDS, record.kinds, strict=True))}
