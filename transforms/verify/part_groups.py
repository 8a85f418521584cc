"""Groups of parts: what a worker reads at a time, and what is compared again after it died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.checkpoint import Checkpoint, Snapshot, read_table
from transforms.load.delta import delta_uri
from transforms.support import stop
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.support.work_rows import WorkRows

GROUP_BYTES = 64 << 20
"""About the bytes of the parts of a group."""

PartGroup = tuple[int, ...]
"""Positions of parts in a snapshot, ascending."""


def _group_row(group: PartGroup) -> dict[str, Any]:
    return {"parts": group}


def _group_of(row: dict[str, Any]) -> PartGroup:
    return tuple(row["parts"])


PART_GROUPS = WorkRows(pa.schema([("parts", pa.list_(pa.int64()))]), _group_row, _group_of)
"""How a `PartGroup` travels."""


def groups_of(snapshot: Snapshot, positions: Sequence[int] | None = None) -> list[PartGroup]:
    """The parts of a snapshot, or some of them, in groups of about `GROUP_BYTES`; each has at least one."""
    sizes = snapshot.parts.column("bytes").to_pylist()
    groups: list[list[int]] = []
    filled = 0
    for position in range(len(sizes)) if positions is None else positions:
        if not groups or filled + sizes[position] > GROUP_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(position)
        filled += sizes[position]
    return [tuple(group) for group in groups]


def name_of(group: PartGroup) -> str:
    """The name of a group, which files of findings have."""
    return str(group[0])


@dataclass(frozen=True)
class SnapshotRows:
    """The rows of a snapshot's parts that are compared; small enough to travel.

    Attributes:
        checkpoint: where they are.
        snapshot: its name.
        written: folder of `transforms.load.delta` with the rows that a sync wrote, which alone count: none of a part
            without a file there. "" for all rows.
    """

    checkpoint: Checkpoint
    snapshot: str
    written: str = ""

    def open(self) -> OpenRows:
        return self.of(self.checkpoint.read_snapshot(self.snapshot))

    def of(self, snapshot: Snapshot) -> OpenRows:
        """The rows, for a process that has the snapshot in memory."""
        return OpenRows(self, snapshot)


class OpenRows:
    """The rows, with their snapshot in memory.

    Args:
        snapshot: the one that `given` names.
    """

    def __init__(self, given: SnapshotRows, snapshot: Snapshot) -> None:
        self._given = given
        self._snapshot = snapshot

    @property
    def count(self) -> int:
        """How many live rows there are."""
        return self._snapshot.total("rows")

    def of(self, positions: Sequence[int], columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """The rows of some parts, each with its position, one part after the other."""
        for position in positions:
            stop.check()
            part = self._snapshot.live_part(position)
            if not self._given.written:
                yield position, self._given.checkpoint.read_live(part, columns)
            elif filesystem.exists(uri := delta_uri(self._given.written, position)):
                # The rows of a delta are numbered among the live ones.
                rows = read_table(uri, ["row"]).column("row")
                yield position, self._given.checkpoint.read_live(part, columns).take(rows)

    def at(self, places: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Rows by their places among all live rows, ascending; only the parts that have one are read."""
        ends = np.cumsum(np.array(self._snapshot.parts.column("rows").to_pylist(), np.int64))
        starts = np.concatenate([[0], ends])
        parts = np.searchsorted(ends, places, side="right")
        return pa.concat_tables(
            self._given.checkpoint.read_live(self._snapshot.live_part(int(part)), columns).take(
                pa.array(places[parts == part] - starts[part])
            )
            for part in np.unique(parts)
        )


class WithRows(VersionedDoFn):
    """Base of the steps that read parts."""

    def __init__(self, given: SnapshotRows) -> None:
        self._given = given

    def setup(self) -> None:
        self._rows = self._given.open()
