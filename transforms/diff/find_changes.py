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

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsIter, TaggedOutput

from schemas.config import Config
from schemas.identity import row_id
from schemas.layout import ITEM_MODALITY, LOCATOR
from schemas.records import Kind
from transforms.checkpoint import write_table
from transforms.checkpoint.items import first_rows
from transforms.diff.comparison import DEAD_SCHEMA, WORK_SCHEMA, buckets_of, compare, pack, pair_moves, split, unpack
from transforms.diff.digest import chunking_of, halves, new_digests, old_digests
from transforms.diff.findings import (
    CONFLICT_SCHEMA,
    COUNTS_SCHEMA,
    DEAD_PARTS_SCHEMA,
    DRAWN_SCHEMA,
    ERRORS_SCHEMA,
    FIRST_REJECTS_SCHEMA,
    SAMPLE_SCHEMA,
    SURVEYED_SCHEMA,
    Findings,
    SnapshotSide,
)
from transforms.read import CONTAINER_ERRORS, ShardFiles, ShardRange, read_shard
from transforms.support import metrics, stop
from transforms.support.storage import filesystem
from transforms.support.storage.stored_table import StoredTable
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.support.work_list import ReadWork
from transforms.support.work_rows import WorkRows

GATHERED_ROWS = 50_000
PARTS = 32
"""How many parts' items are read together."""
SAMPLED = 16_000
"""About how many items are sampled."""
ID_TOO_LONG = "IdTooLong"
FIRST_REJECTS = 5
"""Most rejects of a shard that are listed."""


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
            _New(self.config, self.findings.files_uri, self.buckets, whole, self.sampling)
        ).with_outputs("broken", "tables", main="digests")
        compare = beam.ParDo(_Compare(self.config.corpus.on_duplicate == "last", self.buckets, whole))
        if self.base is None:
            found = new.digests | "ByKey" >> beam.GroupByKey() | "Compare" >> compare
            return (
                (found, new.tables) | "Tables" >> beam.Flatten() | "Write" >> _WriteTables(self.findings, self.pieces)
            )
        old = (
            shards.pipeline
            | "Parts" >> self.parts
            | "DigestParts" >> beam.ParDo(_Old(self.base, self.findings.listing_uri, self.buckets))
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
            | "Plan" >> beam.ParDo(_WritePlan(self.findings, self.sampling)).with_outputs("tables", main="counts")
        )
        dead = (
            (compared.dead, paired.dead)
            | "Dead" >> beam.Flatten()
            | "ByPart" >> beam.GroupByKey()
            | "Spare" >> beam.ParDo(_Dead(self.base), AsIter(new.broken))
        )
        return (
            (compared[None], counts.counts, counts.tables, dead, new.tables)
            | "Tables" >> beam.Flatten()
            | "Write" >> _WriteTables(self.findings, self.pieces)
        )


def _group_row(parts: tuple[int, ...]) -> dict[str, Any]:
    return {"parts": parts}


def _group_of(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row["parts"])


PART_GROUPS = WorkRows(pa.schema([("parts", pa.list_(pa.int64()))]), _group_row, _group_of)
"""How a group of positions of parts travels."""


class _New(VersionedDoFn):
    def __init__(self, config: Config, listing: str, buckets: int, whole: bool, sampling: float) -> None:
        self._config = config
        self._files = ShardFiles(listing)
        self._chunking = chunking_of(config)
        self._buckets = buckets
        self._whole = whole
        self._sampling = sampling

    def process(self, given: ShardRange) -> Iterator[Any]:
        shard, gathered = self._files.open(given), _Buckets(self._buckets)
        files = {file.shown: position for file, position in zip(shard.files, shard.positions, strict=True)}
        errors: Counter[str] = Counter()
        items, size = 0, 0
        for batch in read_shard(shard, self._config.corpus, batch_rows=self._config.batch_rows):
            stop.check()
            metrics.count("items_surveyed", batch.items_read)
            place = (shard.index, batch.key.ordinal)
            digests = new_digests(batch.items, place, files, self._chunking, whole=self._whole)
            content = pc.sum(digests.column("size")).as_py() or 0
            metrics.count("content_bytes", content)
            items, size = items + batch.items_read, size + content
            yield from gathered.add(digests)
            yield from self._sample(batch.items, digests)
            for reject in batch.rejects.select(["uri", "error"]).to_pylist():
                if reject["error"] in CONTAINER_ERRORS:
                    yield TaggedOutput("broken", files[reject["uri"]])
            if (named := batch.rejects.slice(0, max(0, FIRST_REJECTS - errors.total()))).num_rows:
                indexes = pa.array([shard.index] * named.num_rows, pa.int32())
                named = named.append_column(FIRST_REJECTS_SCHEMA.field("shard"), indexes)
                yield TaggedOutput("tables", ("rejects", named.cast(FIRST_REJECTS_SCHEMA)))
            errors.update(batch.rejects.column("error").to_pylist())
            if long := self._too_long(batch.items):
                errors[ID_TOO_LONG] += long
        if errors:
            counted = [{"error": error, "count": number} for error, number in errors.items()]
            yield TaggedOutput("tables", ("errors", pa.Table.from_pylist(counted, schema=ERRORS_SCHEMA)))
        yield TaggedOutput("tables", ("surveyed", pa.table([[items], [size]], schema=SURVEYED_SCHEMA)))
        yield from gathered.rest()

    def _too_long(self, items: pa.Table) -> int:
        """Items whose first row id is longer than Milvus accepts, which the chunker rejects."""
        lengths = pc.binary_length(items.column("item_id"))
        most = self._config.collection.id_max_bytes - len(row_id("", 0))
        return int(pc.sum(pc.greater(lengths, most)).as_py() or 0)

    def _sample(self, items: pa.Table, digests: pa.Table) -> Iterator[TaggedOutput]:
        # By a digest, not by chance: the same items in each run.
        chosen = np.flatnonzero(_drawn(digests.column("digest"), self._sampling))
        if len(chosen):
            taken = items.take(pa.array(chosen))
            nothing = pa.array([""] * len(chosen))
            some = [taken.column(name) if name in taken.column_names else nothing for name in (LOCATOR, ITEM_MODALITY)]
            named = digests.column("digest").take(pa.array(chosen))
            columns = [taken.column("@content"), taken.column("@uri"), *some, named]
            yield TaggedOutput("tables", ("sample", pa.table(columns, schema=SAMPLE_SCHEMA)))


class _Buckets:
    """Gathers digests before it splits them: a table of a few rows would travel with more schema than data."""

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets
        self._tables: list[pa.Table] = []
        self._rows = 0

    def add(self, digests: pa.Table) -> Iterator[tuple[int, bytes]]:
        self._tables.append(digests)
        self._rows += digests.num_rows
        if self._rows >= GATHERED_ROWS:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[int, bytes]]:
        if self._rows:
            table = pa.concat_tables(self._tables)
            self._tables, self._rows = [], 0
            for bucket, piece in split(table, buckets_of(table.column("key"), self._buckets)):
                yield bucket, pack(piece)


class _Old(VersionedDoFn):
    def __init__(self, base: SnapshotSide, listing: str, buckets: int) -> None:
        self._base = base
        self._listing = listing
        self._buckets = buckets

    def setup(self) -> None:
        self._snapshot = self._base.open()
        self._files = StoredTable(self._listing)

    def process(self, parts: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
        gathered = _Buckets(self._buckets)
        for part in parts:
            stop.check()
            yield from gathered.add(self._digests(part))
        yield from gathered.rest()

    def _digests(self, part: int) -> pa.Table:
        live = self._snapshot.live_part(part)
        items = self._base.checkpoint.read_items(live.name)
        found = self._files.find("name", pc.unique(items.column("path")).to_pylist())
        files = {name: (row["position"], row["kept"]) for name, row in found.items()}
        return old_digests(items, part, live.dead, files)


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


def _drawn(digests: pa.ChunkedArray, sampling: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether an item is in the sample, bool[n]."""
    return halves(digests)[:, 1] < np.uint64(min(int(sampling * 2**64), 2**64 - 1))


class _WritePlan(VersionedDoFn):
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
        drawn = work.filter(pa.array(embedded & _drawn(work.column("digest"), self._sampling)))
        if drawn.num_rows:
            yield TaggedOutput("tables", ("drawn", drawn.select(DRAWN_SCHEMA.names).cast(DRAWN_SCHEMA)))


class _Dead(VersionedDoFn):
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
class _WriteTables(beam.PTransform):  # type: ignore[misc]
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
