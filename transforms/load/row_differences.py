"""Rows in which two snapshots differ, and what becomes of each: upserted, deleted, or gone with an upsert."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from transforms.checkpoint import LivePart, Snapshot
from transforms.checkpoint.snapshot import LIVE_PARTS
from transforms.support.work_rows import WorkRows

NEW, OLD = 0, 1

_ROW_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("digest", pa.binary(16), nullable=False),  # of all columns but the vector and the text
        pa.field("side", pa.int8(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),  # among the live rows of its part
    ]
)


class PartRows(NamedTuple):
    """Some rows of a part: of the snapshot to reach (`NEW`), or of the one that the collection holds (`OLD`)."""

    side: int
    position: int
    part: LivePart


def _side_row(side: PartRows) -> dict[str, Any]:
    return {"side": side.side, "position": side.position, **LIVE_PARTS.to_row(side.part)}


def _side_of(row: dict[str, Any]) -> PartRows:
    return PartRows(row["side"], row["position"], LIVE_PARTS.from_row(row))


PART_ROWS = WorkRows(
    pa.schema([("side", pa.int8()), ("position", pa.int64()), *LIVE_PARTS.schema]), _side_row, _side_of
)
"""How `PartRows` travel."""


def part_rows(old: Snapshot, new: Snapshot) -> list[PartRows]:
    """The rows in which two snapshots differ, as parts of either.

    Of a part that both have, only the rows that died in between count. Where rows of it live again, as when what was
    deleted is back and another run found the part as it once was, all its rows of both sides are compared.
    """
    before = {part.name: part for part in old.live_parts}
    found = []
    for position, part in enumerate(new.live_parts):
        if part.name not in before:
            found.append(PartRows(NEW, position, part))
            continue
        was = before.pop(part.name)
        if len(np.setdiff1d(was.dead, part.dead)):
            found += [PartRows(NEW, position, part), PartRows(OLD, -1, was)]
        elif len(was.dead) != len(part.dead):
            rows = new.parts.column("rows")[position].as_py() + len(part.dead)
            died = np.setdiff1d(part.dead, was.dead)
            others = np.setdiff1d(np.arange(rows, dtype=np.int32), died)
            found.append(PartRows(OLD, -1, LivePart(part.name, others)))
    return found + [PartRows(OLD, -1, part) for part in before.values()]


def row_digests(rows: pa.Table, side: int, position: int) -> pa.Table:
    """Rows of a part without vector and text, as digests of the other columns."""
    columns = [rows.column(name).to_pylist() for name in sorted(rows.column_names)]
    digests = [blake2b(orjson.dumps(row), digest_size=16).digest() for row in zip(*columns, strict=True)]
    return pa.table(
        {
            "id": rows.column("id"),
            "item_id": rows.column("item_id"),
            "digest": pa.array(digests, pa.binary(16)),
            "side": np.full(len(digests), side, np.int8),
            "part": np.full(len(digests), position, np.int32),
            "row": np.arange(len(digests), dtype=np.int32),
        },
        schema=_ROW_SCHEMA,
    )


class Settled(NamedTuple):
    """Decisions for the rows of some items.

    Attributes:
        upserts: for (part, row) the ids that vanish with it.
        gone: ids of items of which nothing is upserted.
    """

    upserts: dict[tuple[int, int], list[str]]
    gone: list[str]


def settle(rows: pa.Table) -> Settled:
    """Decides about all rows of some items.

    Args:
        rows: all rows of these items in which the snapshots differ.
    """
    old: dict[str, tuple[bytes, str]] = {}
    new: dict[str, tuple[bytes, str, tuple[int, int]]] = {}
    columns: Any = (rows.column(name).to_pylist() for name in _ROW_SCHEMA.names)
    for row_id, item, digest, side, part, row in zip(*columns, strict=True):
        if side == OLD:
            old[row_id] = (digest, item)
        else:
            new[row_id] = (digest, item, (part, row))
    upserts: dict[tuple[int, int], list[str]] = {}
    first_of_item: dict[str, tuple[int, int]] = {}
    for row_id, (digest, item, place) in new.items():
        if row_id in old and old[row_id][0] == digest:
            continue
        upserts[place] = []
        first_of_item[item] = min(place, first_of_item.get(item, place))
    gone: list[str] = []
    for row_id, (_, item) in sorted(old.items()):
        if row_id not in new:
            (upserts[first_of_item[item]] if item in first_of_item else gone).append(row_id)
    return Settled(upserts, gone)
