"""A snapshot: which rows of which parts are the corpus as of one run, and the files that they were read from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.identity import digest, digest_bytes
from transforms.support.work_rows import WorkRows

SNAPSHOT_DIGITS = 6
SPACE_DIGITS = 8

Rows = np.ndarray[Any, np.dtype[np.int32]]


class LivePart(NamedTuple):
    """A part of a snapshot; `dead` int32[n] are its rows that are no longer in the corpus, ascending."""

    name: str
    dead: Rows

    def keep(self, table: pa.Table) -> pa.Table:
        """The live rows of the whole part's table."""
        if len(self.dead) == 0:
            return table
        mask = np.ones(table.num_rows, bool)
        mask[self.dead] = False
        return table.filter(pa.array(mask))


def _live_row(part: LivePart) -> dict[str, Any]:
    return part._asdict()


def _live_of(row: dict[str, Any]) -> LivePart:
    return LivePart(row["name"], np.array(row["dead"], np.int32))


LIVE_PARTS = WorkRows(
    pa.schema([pa.field("name", pa.string(), nullable=False), pa.field("dead", pa.list_(pa.int32()))]),
    _live_row,
    _live_of,
)
"""How a `LivePart` travels."""


@dataclass(frozen=True)
class Snapshot:
    """The corpus as of one run.

    Attributes:
        name: file name below snapshots/.
        id: digest of its live rows.
        corpus_digest: of the listing and of the settings that determine rows.
        settings_digest: of those settings alone.
        parts: table of `schemas.records.PART_SCHEMA`.
        files: table of `schemas.records.FILE_SCHEMA`, in corpus order.
    """

    name: str
    id: str
    space_id: str
    corpus_digest: str
    settings_digest: str
    parts: pa.Table = field(repr=False)
    files: pa.Table = field(repr=False)

    @cached_property
    def part_names(self) -> list[str]:
        """Names of the parts, in order."""
        names: list[str] = self.parts.column("part").to_pylist()
        return names

    @cached_property
    def _dead(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Rows]:
        lists = self.parts.column("dead").combine_chunks()
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.concatenate([[0], np.cumsum(lengths)]), lists.flatten().to_numpy(zero_copy_only=False)

    def live_part(self, position: int) -> LivePart:
        """A part by its position."""
        borders, rows = self._dead
        return LivePart(self.part_names[position], rows[borders[position] : borders[position + 1]].astype(np.int32))

    @property
    def live_parts(self) -> list[LivePart]:
        return [self.live_part(position) for position in range(self.parts.num_rows)]

    def bytes_of(self, names: Iterable[str]) -> int:
        """Bytes of some parts; parts of other snapshots have none."""
        chosen = self.parts.filter(pc.is_in(self.parts.column("part"), value_set=pa.array(names, pa.string())))
        return int(pc.sum(chosen.column("bytes")).as_py() or 0)

    def total(self, column: str) -> int:
        """Sum of a count over all parts (rows, items, tokens, tokens_dropped, bytes) or files (items_read)."""
        table = self.parts if column in self.parts.column_names else self.files
        return int(pc.sum(table.column(column)).as_py() or 0)

    def errors(self) -> dict[str, int]:
        """Rejects by error."""
        counts: dict[str, int] = {}
        for entries in with_any(self.files.select(["errors"]), "errors").column("errors").to_pylist():
            for entry in entries:
                counts[entry["error"]] = counts.get(entry["error"], 0) + entry["count"]
        return dict(sorted(counts.items()))

    def rejects(self) -> list[str]:
        """Names of the files of rejects, in corpus order."""
        files = with_any(self.files.select(["rejects"]), "rejects")
        names = (name for names in files.column("rejects").to_pylist() for name in names)
        return list(dict.fromkeys(names))

    @property
    def complete(self) -> bool:
        """Whether no file needs to be read again."""
        return bool(pc.all(self.files.column("complete")).as_py() in (True, None))


def with_any(files: pa.Table, column: str) -> pa.Table:
    """The rows whose list in a column is not empty: usually few of millions of files."""
    return files.filter(pc.greater(pc.list_value_length(files.column(column)), 0))


def snapshot_id(space_id: str, parts: pa.Table, files: pa.Table) -> str:
    """Digest of what the rows and rejects of a corpus are."""
    rejects = with_any(files.select(["rejects"]), "rejects").column("rejects").to_pylist()
    dead = parts.column("dead").combine_chunks()
    lengths = pc.list_value_length(dead).to_pylist()
    rows = dead.flatten().to_numpy(zero_copy_only=False).astype("<i4").tobytes()
    return digest([space_id, parts.column("part").to_pylist(), lengths, digest_bytes([rows]), rejects])


def snapshot_name(number: int, space_id: str, identity: str) -> str:
    """File name of a snapshot.

    >>> snapshot_name(7, "00112233445566778899", "aabb")
    '000007-00112233-aabb.parquet'
    """
    return f"{number:0{SNAPSHOT_DIGITS}d}-{space_id[:SPACE_DIGITS]}-{identity}.parquet"
