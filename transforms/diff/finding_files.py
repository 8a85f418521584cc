"""The findings of a diff as files: a plan for each shard, and tables in pieces."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput

from schemas.records import Kind
from transforms.checkpoint import write_table
from transforms.checkpoint.items import first_rows
from transforms.diff.comparison import DEAD_SCHEMA, WORK_SCHEMA, pack, unpack
from transforms.diff.digest import is_sampled
from transforms.diff.findings import COUNTS_SCHEMA, DEAD_PARTS_SCHEMA, DRAWN_SCHEMA, Findings, SnapshotSide
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn


class WritePlan(VersionedDoFn):
    """The work of a shard -> its plan as a file, its counts, and the drawn items among `tables`.

    Args:
        sampling: share of the items that are in the sample.
    """

    def __init__(self, findings: Findings, sampling: float) -> None:
        self._findings = findings
        self._sampling = sampling

    def process(self, group: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        shard, tables = group
        work = unpack(tables).sort_by([("ordinal", "ascending"), ("row", "ascending")])
        write_table(self._findings.plan_uri(str(shard)), work.cast(WORK_SCHEMA))
        kinds = work.column("kind").to_numpy()
        counts = np.bincount(kinds, minlength=len(Kind))
        sizes = work.column("size").to_numpy().astype(np.int64)
        embedded = kinds <= Kind.CHANGED
        other = embedded & ~work.column("same_content").to_numpy()
        row = (*counts, sizes[embedded].sum(), np.count_nonzero(other), sizes[other].sum())
        yield "counts", pa.table([pa.array([int(value)]) for value in row], schema=COUNTS_SCHEMA)
        taken = work.filter(pa.array(embedded & is_sampled(work.column("digest"), self._sampling)))
        if taken.num_rows:
            yield TaggedOutput("tables", ("drawn", taken.select(DRAWN_SCHEMA.names).cast(DRAWN_SCHEMA)))


class DeadRows(VersionedDoFn):
    """Dead items of a part -> its row of `DEAD_PARTS_SCHEMA`; `broken` are positions of files not read to their end."""

    def __init__(self, base: SnapshotSide) -> None:
        self._base = base

    def setup(self) -> None:
        self._snapshot = self._base.open()

    def process(self, group: tuple[int, Iterable[bytes]], broken: Iterable[int]) -> Iterator[tuple[str, pa.Table]]:
        part, tables = group
        dead = unpack(tables).cast(DEAD_SCHEMA).sort_by("item")
        files = dead.column("file").to_numpy()
        # Items missing in a file that could not be read to its end may be in the rest.
        spared = dead.column("deleted").to_numpy() & np.isin(files, np.array(sorted(set(broken)), np.int32))
        gone = dead.filter(pa.array(~spared))
        items = self._base.checkpoint.read_items(self._snapshot.part_names[part])
        places = gone.column("item").to_numpy()
        starts, counts = first_rows(items)[places], items.column("rows").to_numpy()[places]
        taken = items.take(pa.array(places))
        row = {
            "part": part,
            "dead": [row for s, n in zip(starts.tolist(), counts.tolist(), strict=True) for row in range(s, s + n)],
            "items": len(places),
            "tokens": pc.sum(taken.column("tokens")).as_py() or 0,
            "tokens_dropped": pc.sum(taken.column("tokens_dropped")).as_py() or 0,
            "deleted": int((gone.column("deleted").to_numpy() & ~gone.column("moved").to_numpy()).sum()),
            "spared": files[spared].tolist(),
        }
        yield "dead", pa.Table.from_pylist([row], schema=DEAD_PARTS_SCHEMA)


@dataclass(eq=False)
class WriteTables(beam.PTransform):  # type: ignore[misc]
    """PCollection of (name, table) -> PCollection of the names of the files that hold them, some per name."""

    findings: Findings
    pieces: int

    def expand(self, tables: beam.PCollection) -> beam.PCollection:
        return (
            tables
            | "Piece" >> beam.ParDo(_Piece(self.pieces))
            | "Gather" >> beam.GroupByKey()
            | "File" >> beam.ParDo(_WriteTable(self.findings))
        )


class _Piece(VersionedDoFn):
    """Deals out the tables of a name, so that no worker has to hold all of them."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def process(self, found: tuple[str, pa.Table]) -> Iterator[tuple[tuple[str, int], bytes]]:
        name, table = found
        packed = pack(table)
        yield (name, zlib.crc32(packed) % self._pieces), packed


class _WriteTable(VersionedDoFn):
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def process(self, group: tuple[tuple[str, int], Iterable[bytes]]) -> Iterator[str]:
        (name, piece), tables = group
        uri = self._findings.piece_uri(name, piece)
        write_table(uri, unpack(tables))
        yield filesystem.as_text(uri)
