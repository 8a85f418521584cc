"""From the snapshot that a collection holds to another one: which rows to delete, which to upsert, in which order.

Only rows of parts that the two snapshots do not share count. They are shuffled by item, so that the rows that an
item loses are deleted right before its new rows are written, and no searcher sees a document twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from schemas.config import Collection
from schemas.milvus import CollectionSpec
from schemas.row_columns import compared_columns
from transforms import milvus
from transforms.checkpoint import Checkpoint, read_table, write_table
from transforms.diff.comparison import BUCKETS, split
from transforms.load.row_differences import PartRows, row_digests, settle
from transforms.load.upsert_parts import Ledger
from transforms.load.writers import DealToWriters
from transforms.support import metrics, stop
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn

GONE = "gone"
"""Tag of the ids of rows whose items are gone."""

DELTA_SCHEMA = pa.schema(
    [
        # One row for each row of a part that the collection does not have, or has with other values.
        pa.field("row", pa.int32(), nullable=False),
        pa.field("delete", pa.list_(pa.string()), nullable=False),  # ids that vanish with it
    ]
)


@dataclass(eq=False)
class FindDelta(beam.PTransform):  # type: ignore[misc]
    """PCollection of `PartRows` -> PCollection of positions of parts with something to upsert; deletes gone items.

    The positions come once these are deleted, so that what upserts the parts may be of the same pipeline. Writes
    `<folder>/<position>.parquet` of `DELTA_SCHEMA` for each of these parts.

    Attributes:
        checkpoint: where the parts are.
        config: the collection's section of the configuration.
        spec: the collection.
        folder: of the run.
        buckets: number of buckets that the items are shuffled into.
        writers: most workers that delete at once; by default the writers of the configuration.
    """

    checkpoint: Checkpoint
    config: Collection
    spec: CollectionSpec
    folder: str
    buckets: int = BUCKETS
    writers: int | None = None

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        settled = (
            parts
            | "Rows" >> beam.ParDo(_Rows(self.checkpoint, self.spec.vector_names, self.buckets))
            | "ByItem" >> beam.GroupByKey()
            | "Settle" >> beam.ParDo(_Settle()).with_outputs(GONE, main="upserts")
        )
        deal = DealToWriters(self.writers or self.config.most_writers, _first_id)
        deleted = settled[GONE] | "Writers" >> deal | "Delete" >> beam.ParDo(_Delete(self.config, self.spec))
        return (
            settled.upserts
            | "ByPart" >> beam.GroupByKey()
            | "Delta" >> beam.ParDo(_WriteDelta(self.folder))
            | "AfterDeletes" >> beam.WaitOn(deleted)
        )


class _Rows(VersionedDoFn):
    def __init__(self, checkpoint: Checkpoint, vectors: frozenset[str], buckets: int) -> None:
        self._checkpoint = checkpoint
        self._vectors = vectors
        self._buckets = buckets

    def process(self, side: PartRows) -> Iterator[tuple[int, pa.Table]]:
        stop.check()
        names = compared_columns(self._checkpoint.part_columns(side.part.name), self._vectors)
        rows = row_digests(self._checkpoint.read_live(side.part, names), side.side, side.position)
        digests = [blake2b(item.encode(), digest_size=8).digest() for item in rows["item_id"].to_pylist()]
        buckets = [int.from_bytes(digest) % self._buckets for digest in digests]
        yield from split(rows, np.array(buckets, np.int64))


class _Connected(VersionedDoFn):
    def __init__(self, config: Collection, spec: CollectionSpec) -> None:
        self._config = config
        self._spec = spec
        self._connection: Any = None

    def setup(self) -> None:
        self._connection = milvus.connect(self._config)

    def teardown(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def delete(self, ids: Sequence[str]) -> None:
        milvus.delete(self._connection, self._spec.name, ids)
        metrics.count("chunks_deleted", len(ids))


def _first_id(ids: list[str]) -> str:
    return ids[0]


class _Delete(_Connected):
    def process(self, group: tuple[int, Iterable[list[str]]]) -> Iterator[int]:
        for ids in group[1]:
            stop.check()
            with metrics.timed("load"):
                self.delete(ids)
        yield group[0]


class _Settle(VersionedDoFn):
    def process(self, group: tuple[int, Iterable[pa.Table]]) -> Iterator[Any]:
        stop.check()
        settled = settle(pa.concat_tables(group[1]))
        # Items that no longer exist, or have another id, are deleted before any new row is written.
        if settled.gone:
            yield beam.pvalue.TaggedOutput(GONE, settled.gone)
        by_part: dict[int, list[dict[str, Any]]] = {}
        for (part, row), ids in settled.upserts.items():
            by_part.setdefault(part, []).append({"row": row, "delete": ids})
        for part, found in by_part.items():
            yield part, pa.Table.from_pylist(found, schema=DELTA_SCHEMA)


class _WriteDelta(VersionedDoFn):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, group: tuple[int, Iterable[pa.Table]]) -> Iterator[int]:
        part, tables = group
        write_table(delta_uri(self._folder, part), pa.concat_tables(tables).sort_by("row"))
        yield part


def delta_uri(folder: str, part: int) -> str:
    return filesystem.join(folder, f"{part}.parquet")


@dataclass(eq=False)
class ApplyDelta(beam.PTransform):  # type: ignore[misc]
    """PCollection of positions of parts -> PCollection of (part name, rows), each after its acknowledgement.

    Attributes:
        config: the collection's section of the configuration.
        spec: the collection.
        ledger: records acknowledgements.
        snapshot: name of the snapshot to reach.
        folder: what `FindDelta` wrote.
        writers: most parts at once; by default those of the configuration.
    """

    config: Collection
    spec: CollectionSpec
    ledger: Ledger
    snapshot: str
    folder: str
    writers: int | None = None

    def expand(self, parts: beam.PCollection) -> beam.PCollection:
        deal = DealToWriters(self.writers or self.config.most_writers)
        return parts | "Writers" >> deal | "Upsert" >> beam.ParDo(_Apply(self))


class _Apply(_Connected):
    def __init__(self, given: ApplyDelta) -> None:
        super().__init__(given.config, given.spec)
        self._given = given
        self._ledger = given.ledger
        self._folder = given.folder

    def setup(self) -> None:
        super().setup()
        self._snapshot = self._ledger.checkpoint.read_snapshot(self._given.snapshot)

    def process(self, group: tuple[int, Iterable[int]]) -> Iterator[tuple[str, int]]:
        acknowledged = self._ledger.acknowledged()
        for position in group[1]:
            if self._snapshot.part_names[position] not in acknowledged:
                yield from self._apply(position)

    def _apply(self, position: int) -> Iterator[tuple[str, int]]:
        stop.check()
        part = self._snapshot.live_part(position)
        delta = read_table(delta_uri(self._folder, position))
        rows = self._ledger.checkpoint.read_live(part).take(delta.column("row"))
        vanishing = delta.column("delete").to_pylist()

        def before(start: int, end: int) -> None:
            if ids := [row_id for some in vanishing[start:end] for row_id in some]:
                self.delete(ids)

        with metrics.timed("load"):
            loaded = milvus.upsert(self._connection, self._spec, rows, before)
        self._ledger.acknowledge(part.name, loaded)
        metrics.count("chunks_loaded", loaded)
        yield part.name, loaded
