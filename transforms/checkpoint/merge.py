"""Merges many small parts into few full ones, without the encoder: rows, vectors and items stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.identity import digest
from schemas.records import Key, PartRecord
from schemas.rejects import rejects_table
from transforms.checkpoint import Checkpoint, LivePart, Snapshot, part_name
from transforms.checkpoint.embedded import EmbeddedBatch
from transforms.checkpoint.items import live_items
from transforms.checkpoint.snapshot import LIVE_PARTS
from transforms.checkpoint.thumbnails import read_thumbnails, thumbnail_names, without_pictures, write_thumbnails
from transforms.support import metrics, stop
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.support.work_rows import WorkRows

MANY = 16
"""Number of small parts up to which nothing is merged."""

SMALL_BYTES = 4 << 20
MERGED_BYTES = 16 << 20
SHARD = "compact"


class Merge(NamedTuple):
    """Parts of a snapshot that become one; `positions` are their positions in the snapshot."""

    positions: tuple[int, ...]
    parts: tuple[LivePart, ...]


def _merge_row(merge: Merge) -> dict[str, Any]:
    return {"positions": merge.positions, "parts": [LIVE_PARTS.to_row(part) for part in merge.parts]}


def _merge_of(row: dict[str, Any]) -> Merge:
    return Merge(tuple(row["positions"]), tuple(LIVE_PARTS.from_row(part) for part in row["parts"]))


MERGES = WorkRows(
    pa.schema([("positions", pa.list_(pa.int64())), ("parts", pa.list_(pa.struct(LIVE_PARTS.schema)))]),
    _merge_row,
    _merge_of,
)
"""How a `Merge` travels."""


def find_merges(snapshot: Snapshot, batch_rows: int) -> list[Merge]:
    """What to merge: parts that are small, or mostly dead, if there are many of them.

    Args:
        batch_rows: rows of a full part.
    """
    rows = snapshot.parts.column("rows").to_pylist()
    sizes = snapshot.parts.column("bytes").to_pylist()
    parts = snapshot.live_parts
    waiting = [
        at
        for at, part in enumerate(parts)
        if len(part.dead) > rows[at] or (rows[at] < batch_rows / 2 and sizes[at] < SMALL_BYTES)
    ]
    if len(waiting) <= MANY:
        return []
    merges: list[Merge] = []
    group: list[int] = []
    for at in waiting:
        full = sum(rows[i] for i in group) + rows[at] > batch_rows or sum(sizes[i] for i in group) > MERGED_BYTES
        if group and full:
            merges.append(Merge(tuple(group), tuple(parts[i] for i in group)))
            group = []
        group.append(at)
    merges.append(Merge(tuple(group), tuple(parts[i] for i in group)))
    return [merge for merge in merges if len(merge.parts) > 1 or len(merge.parts[0].dead)]


class MergeParts(VersionedDoFn):
    """`Merge` -> `PartRecord` of the part that holds its rows, written unless it exists."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def process(self, merge: Merge) -> Iterator[PartRecord]:
        stop.check()
        with metrics.timed("checkpoint"):
            yield self._merge(merge)

    @cached_property
    def _pictured(self) -> set[str]:
        """The parts that have pictures: by one listing, as there are many parts."""
        return thumbnail_names(self._checkpoint)

    def _merge_thumbnails(self, name: str, merge: Merge, rows: list[pa.Table]) -> None:
        if self._pictured.isdisjoint(part.name for part in merge.parts):
            return
        tables = [
            read_thumbnails(self._checkpoint, part) if part.name in self._pictured else without_pictures(table)
            for part, table in zip(merge.parts, rows, strict=True)
        ]
        write_thumbnails(self._checkpoint, name, pa.concat_tables(tables))

    def _merge(self, merge: Merge) -> PartRecord:
        key = Key(SHARD, len(merge.parts))
        name = part_name(key, digest([(part.name, part.dead.tolist()) for part in merge.parts]))
        found = self._checkpoint.find_part(key, name)
        if found is not None:
            return found
        rows, items = [], []
        for part in merge.parts:
            rows.append(self._checkpoint.read_live(part).replace_schema_metadata())
            beside = self._checkpoint.read_items(part.name)
            items.append(beside.filter(pa.array(np.asarray(live_items(beside, part.dead)))))
        self._merge_thumbnails(name, merge, rows)
        runtime = self._checkpoint.runtime(merge.parts[0].name)
        batch = EmbeddedBatch(pa.concat_tables(rows), rejects_table([]), 0, runtime)
        return self._checkpoint.write_part(key, name, batch, pa.concat_tables(items))
