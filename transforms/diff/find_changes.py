"""The diff as Beam transforms: read the files that changed, compare their items with the snapshot, write a plan.

The results are in a folder of the run:

    plan/<shard>.parquet    what to do with each item of a shard that is read again (`WORK_SCHEMA`)
    counts/*.parquet        items by kind, one row per shard
    dead/*.parquet          items of the snapshot that are no longer in the corpus, one row per part
    duplicates/*.parquet    items whose id another item has too (`DUPLICATE_SCHEMA`)
    errors/*.parquet        rejects of the files that were read, by error (`ERRORS_SCHEMA`)
    rejects/*.parquet       the first rejects of each shard (`FIRST_REJECTS_SCHEMA`)
    conflicts/*.parquet     unchanged files with ids that changed files have too: these must be read as well
    sample/*.parquet        some of the items that were read (`SAMPLE_SCHEMA`)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import AsIter, TaggedOutput

from schemas.config import Config
from transforms.diff.comparison import buckets_of, compare, pack, pair_moves, split, unpack
from transforms.diff.digest_sides import DigestParts, DigestShards
from transforms.diff.finding_files import DeadRows, WritePlan, WriteTables
from transforms.diff.findings import (
    CONFLICT_SCHEMA,
    Findings,
    SnapshotSide,
)
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.support.work_list import ReadWork
from transforms.support.work_rows import WorkRows

PARTS = 32
"""How many parts' items are read together."""
SAMPLED = 16_000
"""About how many items are sampled."""


@dataclass(eq=False)
class FindChanges(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardRange` -> the names of the files of `Findings`.

    Attributes:
        config: the configuration.
        findings: where the files go; its listing exists already.
        base: the snapshot to compare with; None looks for duplicates alone.
        parts: positions of the parts of `base` that can be read, in groups of `PARTS` (`PART_GROUPS`).
        buckets: number of buckets that the items are shuffled into.
        sampling: share of the items that go into the sample.
        pieces: most files of one table of findings: each is gathered in the memory of one worker.
    """

    config: Config
    findings: Findings
    base: SnapshotSide | None
    parts: ReadWork
    buckets: int
    sampling: float = 0.0
    pieces: int = 1

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        whole = self.base is not None
        new = shards | "Digest" >> beam.ParDo(
            DigestShards(self.config, self.findings.files_uri, self.buckets, whole, self.sampling)
        ).with_outputs("broken", "tables", main="digests")
        compare = beam.ParDo(_Compare(self.config.corpus.on_duplicate == "last", self.buckets, whole))
        if self.base is None:
            found = new.digests | "ByKey" >> beam.GroupByKey() | "Compare" >> compare
            return (found, new.tables) | "Tables" >> beam.Flatten() | "Write" >> WriteTables(self.findings, self.pieces)
        old = (
            shards.pipeline
            | "Parts" >> self.parts
            | "DigestParts" >> beam.ParDo(DigestParts(self.base, self.findings.listing_uri, self.buckets))
        )
        compared = (
            (new.digests, old)
            | "Sides" >> beam.Flatten()
            | "ByKey" >> beam.GroupByKey()
            | "Compare" >> compare.with_outputs("contents", "work", "dead")
        )
        paired = (
            compared.contents
            | "ByContent" >> beam.GroupByKey()
            | "Pair" >> beam.ParDo(_Pair()).with_outputs("work", "dead")
        )
        counts = (
            (compared.work, paired.work)
            | "Work" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
            | "Plan" >> beam.ParDo(WritePlan(self.findings, self.sampling)).with_outputs("tables", main="counts")
        )
        dead = (
            (compared.dead, paired.dead)
            | "Dead" >> beam.Flatten()
            | "ByPart" >> beam.GroupByKey()
            | "Spare" >> beam.ParDo(DeadRows(self.base), AsIter(new.broken))
        )
        return (
            (compared[None], counts.counts, counts.tables, dead, new.tables)
            | "Tables" >> beam.Flatten()
            | "Write" >> WriteTables(self.findings, self.pieces)
        )


def _group_row(parts: tuple[int, ...]) -> dict[str, Any]:
    return {"parts": parts}


def _group_of(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row["parts"])


PART_GROUPS = WorkRows(pa.schema([("parts", pa.list_(pa.int64()))]), _group_row, _group_of)
"""How a group of positions of parts travels."""


class _Compare(VersionedDoFn):
    def __init__(self, keep_last: bool, buckets: int, whole: bool) -> None:
        self._keep_last = keep_last
        self._buckets = buckets
        self._whole = whole

    def process(self, group: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        found = compare(unpack(group[1]), keep_last=self._keep_last)
        if found.duplicates.num_rows:
            yield "duplicates", found.duplicates
        if not self._whole:
            return
        if found.conflicts:
            yield "conflicts", pa.table({"file": pa.array(found.conflicts, pa.int32())}, schema=CONFLICT_SCHEMA)
        yield from _by_shard(found.work)
        yield from _by_part(found.dead)
        for table in (found.new, found.old):
            for bucket, piece in split(table, buckets_of(table.column("content"), self._buckets)):
                yield TaggedOutput("contents", (bucket, pack(piece)))


class _Pair(VersionedDoFn):
    def process(self, group: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        work, dead = pair_moves(unpack(group[1]))
        yield from _by_shard(work)
        yield from _by_part(dead)


def _by_shard(work: pa.Table) -> Iterator[TaggedOutput]:
    for shard, piece in split(work, work.column("shard").to_numpy()):
        yield TaggedOutput("work", (shard, pack(piece)))


def _by_part(dead: pa.Table) -> Iterator[TaggedOutput]:
    for part, piece in split(dead, dead.column("part").to_numpy()):
        yield TaggedOutput("dead", (part, pack(piece)))
