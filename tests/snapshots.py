"""Snapshots for tests, of parts that are nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from schemas.records import FILE_SCHEMA, PART_SCHEMA
from transforms.checkpoint import Snapshot
from transforms.checkpoint.snapshot import snapshot_id

SPACE_ID = "0123456789abcdef"


def part_table(parts: Mapping[str, tuple[int, list[int]]], sizes: Mapping[str, int] | None = None) -> pa.Table:
    """Table of `PART_SCHEMA`, of one item a row.

    Args:
        parts: by name the rows of the file and which of them are dead.
        sizes: bytes of a part's file; 100 a row where it is not named.
    """
    rows = []
    for name, (count, dead) in parts.items():
        live = count - len(dead)
        size = (sizes or {}).get(name, 100 * count)
        counts = {"rows": live, "items": live, "tokens": 5 * live, "tokens_dropped": 0, "bytes": size}
        rows.append({"part": name, **counts, "dead": sorted(dead)})
    return pa.Table.from_pylist(rows, schema=PART_SCHEMA)


def snapshot(parts: pa.Table, files: list[dict[str, Any]] | None = None) -> Snapshot:
    """A snapshot of parts and of rows of `FILE_SCHEMA`."""
    table = pa.Table.from_pylist(files or [], schema=FILE_SCHEMA)
    return Snapshot("000001-01234567-x.parquet", snapshot_id(SPACE_ID, parts, table), SPACE_ID, "c", "s", parts, table)
