"""What the fused stage did, as two small tables: a row a part and a row a file of the corpus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from schemas.records import ERROR_COUNT, Kind, PartRecord, ReadRecord, RejectRecord

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
        pa.field("embedded", pa.bool_(), nullable=False),  # by this run; false where an earlier one had done it
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


def record_tables(records: Iterable[ReadRecord | RejectRecord | PartRecord]) -> tuple[pa.Table, pa.Table]:
    """Records of all steps, merged.

    Returns:
        Tables of `PART_RECORDS`, by shard and ordinal, and of `FILE_RECORDS`, by uri.
    """
    parts: list[dict[str, Any]] = []
    read: dict[str, int] = {}
    errors: dict[str, dict[str, int]] = {}
    rejects: dict[str, set[str]] = {}
    for record in records:
        if isinstance(record, ReadRecord):
            for uri, count in record.files:
                read[uri] = read.get(uri, 0) + count
        elif isinstance(record, RejectRecord):
            for uri, error, count in record.errors:
                of_file = errors.setdefault(uri, {})
                of_file[error] = of_file.get(error, 0) + count
                rejects.setdefault(uri, set()).add(record.name)
        else:
            parts.append(_part_row(record))
    files = [
        {
            "uri": uri,
            "items_read": read.get(uri, 0),
            "errors": [{"error": error, "count": count} for error, count in sorted(errors.get(uri, {}).items())],
            "rejects": sorted(rejects.get(uri, ())),
        }
        for uri in sorted(read.keys() | errors.keys())
    ]
    parts.sort(key=lambda row: (row["shard"], row["ordinal"]))
    return pa.Table.from_pylist(parts, schema=PART_RECORDS), pa.Table.from_pylist(files, schema=FILE_RECORDS)


def _part_row(record: PartRecord) -> dict[str, Any]:
    facts = record._asdict()
    row = {name: facts[name] for name in PART_RECORDS.names if name in facts}
    return {**row, **record.key._asdict(), "part": record.name, **dict(zip(_KINDS, record.kinds, strict=True))}
