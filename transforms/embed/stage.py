"""From shards to parts: the PTransforms of the one fused stage, read -> chunk -> embed -> checkpoint.

This file holds almost no logic. Work lives in `transforms.read`, `transforms.chunk.text`, `transforms.embed.rows` and
`transforms.checkpoint`; here it is wired, timed and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.shared import Shared

from schemas.config import Config
from schemas.layout import SOURCE_ROW, Layout
from schemas.records import SCHEMA_VERSION, Key, Kind, PartRecord, ReadRecord, RejectRecord
from schemas.rejects import Reject, rejects_table
from transforms.checkpoint import Checkpoint, part_name, read_table, write_table
from transforms.checkpoint.embedded import EmbeddedTable
from transforms.checkpoint.part_digest import batch_digest
from transforms.diff import SnapshotSide, chunking_of
from transforms.embed.lazy_encoders import LazyEncoders
from transforms.embed.record import record_tables
from transforms.embed.reuse import assemble, items_beside, with_source_rows
from transforms.embed.rows import embed_table, nothing_embedded
from transforms.embed.work import Gathered, ShardPlan, with_facts
from transforms.encoders.models import chunker_on_worker
from transforms.read import Shard, ShardFiles, ShardRange, read_shard
from transforms.support import metrics, stop
from transforms.support.once import Once
from transforms.support.storage import filesystem


class ShardWork(NamedTuple):
    """A shard to read, without the items that another item's id stands for.

    Attributes:
        shard: what to read.
        duplicates: maps (ordinal, row of its batch) to where the item that is kept stands.
        plan: a table of `transforms.diff.comparison.WORK_SCHEMA` that says what to do with each item; "" is embed all.
    """

    shard: Shard | ShardRange
    duplicates: dict[tuple[int, int], str]
    plan: str = ""


@dataclass(frozen=True)
class Embedding:
    """What the fused stage works with; small enough to travel.

    It names no file of the machine that made it: each worker finds its own files of the model.

    Attributes:
        config: the configuration.
        layout: what a row holds; its spaces are what each worker's models must be of.
        cutting: see `transforms.encoders.models.Models.cutting`.
        checkpoint: where parts and rejects go.
        listing: the table of `transforms.read.shard.TO_READ` that the shards are ranges of.
        base: the snapshot that plans point into.
        salt: tells parts apart that are embedded anew on purpose.
        sample: table of texts that int8 takes its ranges from; "" for none.
    """

    config: Config
    layout: Layout
    cutting: str
    checkpoint: Checkpoint
    listing: str
    base: SnapshotSide | None = None
    salt: str = ""
    sample: str = ""


@dataclass(eq=False)
class EmbedShards(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardWork` -> PCollection of records (`ReadRecord`, `RejectRecord`, `PartRecord`).

    What comes out is small; each record is emitted after its file is durable.
    """

    embedding: Embedding

    def expand(self, work: beam.PCollection) -> beam.PCollection:
        given = self.embedding
        checkpoint = given.checkpoint
        read = work | "Read" >> beam.ParDo(_ReadShard(given.config, given.listing)).with_outputs(
            "records", "rejects", main="batches"
        )
        chunk = _Chunk(given)
        chunked = read.batches | "Chunk" >> beam.ParDo(chunk).with_outputs("rejects", main="batches")
        sought = chunked.batches | "FindPart" >> beam.ParDo(_FindPart(given)).with_outputs("found", main="batches")
        embed = beam.ParDo(_Embed(given))
        if hints := [encoder.accelerator for encoder in given.config.vectors.values() if encoder.accelerator]:
            embed = embed.with_resource_hints(accelerator=hints[0])
        embedded = sought.batches | "Embed" >> embed
        parts = embedded | "Checkpoint" >> beam.ParDo(_WritePart(given))
        read_rejects = read.rejects | "ReadRejects" >> beam.ParDo(_WriteRejects(checkpoint, "read"))
        chunk_rejects = chunked.rejects | "ChunkRejects" >> beam.ParDo(_WriteRejects(checkpoint, "chunk"))
        return (read.records, sought.found, parts, read_rejects, chunk_rejects) | "Records" >> beam.Flatten()


@dataclass(eq=False)
class WriteRecords(beam.PTransform):  # type: ignore[misc]
    """PCollection of records -> two Parquet files in a folder: parts.parquet and files.parquet.

    Their schemas are `PART_RECORDS` and `FILE_RECORDS`; rows are in no special order.
    """

    folder: str

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        return (
            records
            | "Together" >> beam.Map(_with_one_key)
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(_WriteRecords(self.folder))
        )


def _with_one_key(record: Any) -> tuple[int, Any]:
    return 0, record


class _ReadShard(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: Config, listing: str) -> None:
        self._config = config
        self._files = ShardFiles(listing)
        self._chunking = chunking_of(config)

    def process(self, work: ShardWork) -> Iterator[Any]:
        shard = self._files.open(work.shard)
        paths = {file.shown: name for file, name in zip(shard.files, shard.names, strict=True)} if shard.names else None
        gathered = Gathered(work.shard.name, self._config.batch_rows) if work.plan else None
        plan = ShardPlan(read_table(work.plan), work.shard.name) if work.plan else None
        batches = read_shard(shard, self._config.corpus, batch_rows=self._config.batch_rows)
        while True:
            stop.check()
            with metrics.timed("read"):
                batch = next(batches, None)
            if batch is None:
                break
            metrics.count("items_read", batch.items_read)
            metrics.count("bytes_read", batch.bytes_read)
            items, duplicates = _without(batch.items, batch.key, work.duplicates)
            rejects = pa.concat_tables([batch.rejects, duplicates])
            yield TaggedOutput("records", _read_record(batch.key, items, rejects))
            if rejects.num_rows:
                yield TaggedOutput("rejects", (batch.key, rejects))
            with metrics.timed("read"):
                items = with_facts(items, self._chunking, paths)
            if plan is None or gathered is None:
                yield batch.key, items
            else:
                yield from gathered.add(plan.select(items, batch.key.ordinal))
        if gathered is not None:
            yield from gathered.rest()


def _read_record(key: Key, items: pa.Table, rejects: pa.Table) -> ReadRecord:
    counts = Counter(items.column("@uri").to_pylist())
    counts.update(rejects.column("uri").to_pylist())
    return ReadRecord(key, tuple(sorted(counts.items())))


def _without(items: pa.Table, key: Key, duplicates: dict[tuple[int, int], str]) -> tuple[pa.Table, pa.Table]:
    rows = [row for ordinal, row in duplicates if ordinal == key.ordinal]
    if not rows:
        return items, rejects_table([])
    gone = items.take(pa.array(sorted(rows), pa.int64())).select(["item_id", "@uri", "@place"]).to_pylist()
    rejects = rejects_table(
        Reject(
            item["item_id"],
            item["@uri"],
            item["@place"],
            "read",
            "DuplicateId",
            f"another item has the same id; kept is the item at {duplicates[key.ordinal, row]}",
        )
        for row, item in zip(sorted(rows), gone, strict=True)
    )
    keep = np.ones(items.num_rows, bool)
    keep[rows] = False
    return items.filter(pa.array(keep)), rejects


class _Chunk(beam.DoFn):  # type: ignore[misc]
    def __init__(self, given: Embedding) -> None:
        self._chunker = Once(partial(chunker_on_worker, given.config, given.layout, given.cutting))

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[Any]:
        key, items = batch
        with metrics.timed("chunk"):
            chunks, rejects = self._chunker.get().chunk(items)
        if rejects.num_rows:
            yield TaggedOutput("rejects", (key, rejects))
        yield key, chunks


class _WithParts(beam.DoFn):  # type: ignore[misc]
    """Base of the steps that look into the snapshot before."""

    def __init__(self, embedding: Embedding) -> None:
        self._given = embedding
        self._checkpoint = embedding.checkpoint
        self._part_names = Once(partial(_part_names, embedding.base))


def _part_names(base: SnapshotSide | None) -> list[str]:
    return base.open().part_names if base else []


class _FindPart(_WithParts):
    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[Any]:
        key, chunks = batch
        if chunks.num_rows == 0:
            return
        with metrics.timed("checkpoint"):
            digest = batch_digest(chunks, self._checkpoint.space_id, SCHEMA_VERSION, self._given.salt)
            name = part_name(key, digest)
            part = self._checkpoint.find_part(key, name)
            if part is not None:
                part = part._replace(kinds=_kinds(chunks, self._checkpoint.read_items(name)))
        if part is None:
            with metrics.timed("checkpoint"):
                chunks = with_source_rows(chunks, self._checkpoint, self._part_names.get())
            yield key, chunks.replace_schema_metadata({b"part": name.encode()})
            return
        _count_done(part)
        yield from (TaggedOutput("found", record) for record in (*part.rejects, part))


class _Embed(beam.DoFn):  # type: ignore[misc]
    """One model of each vector lives in a worker process, whatever number of threads it has."""

    def __init__(self, given: Embedding) -> None:
        self._layout = given.layout
        self._load = partial(LazyEncoders, given.config, given.layout, given.cutting, given.sample)
        self._shared = Shared()
        self._encoders: LazyEncoders | None = None

    def setup(self) -> None:
        self._encoders = self._shared.acquire(self._load)

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[tuple[Key, EmbeddedTable]]:
        key, chunks = batch
        waiting = chunks.filter(pc.equal(chunks.column(SOURCE_ROW), -1))
        if waiting.num_rows == 0:
            yield key, EmbeddedTable(chunks, nothing_embedded(chunks, self._layout))
            return
        assert self._encoders is not None
        fillers = self._encoders.get()
        with metrics.timed("embed"), metrics.ahead(waiting) as advance:
            embedded = embed_table(waiting, fillers, self._layout, advance)
        metrics.count("chunks_embedded", len(embedded.rows))
        metrics.count("tokens_embedded", pc.sum(embedded.rows.column("tokens")).as_py() or 0)
        metrics.count("tokens_padded", embedded.tokens_padded)
        yield key, EmbeddedTable(chunks, embedded)


def _kinds(chunks: pa.Table, items: pa.Table) -> tuple[int, int, int, int]:
    """Items of a part by what they are to the snapshot before."""
    kinds = dict(zip(chunks.column("@digest").to_pylist(), chunks.column("@kind").to_pylist(), strict=True))
    counts = Counter(kinds[digest] for digest in items.column("digest").to_pylist())
    return counts[Kind.NEW], counts[Kind.CHANGED], counts[Kind.MOVED], counts[Kind.RELOCATED]


class _WritePart(_WithParts):
    def process(self, batch: tuple[Key, EmbeddedTable]) -> Iterator[PartRecord | RejectRecord]:
        key, embedded = batch
        with metrics.timed("checkpoint"):
            name = embedded.chunks.schema.metadata[b"part"].decode()
            whole = assemble(embedded, self._checkpoint, self._part_names.get(), self._given.layout)
            items = items_beside(whole.rows, embedded.chunks)
            part = self._checkpoint.write_part(key, name, whole, items)
        part = part._replace(
            rows_embedded=embedded.batch.rows.num_rows,
            tokens_embedded=pc.sum(embedded.batch.rows.column("tokens")).as_py() or 0,
            kinds=_kinds(embedded.chunks, items),
        )
        _count_done(part)
        yield from part.rejects
        yield part


def _count_done(part: PartRecord) -> None:
    metrics.count("items_done", part.items)
    metrics.count("chunks_done", part.rows)


class _WriteRejects(beam.DoFn):  # type: ignore[misc]
    def __init__(self, checkpoint: Checkpoint, step: str) -> None:
        self._checkpoint = checkpoint
        self._step = step

    def process(self, batch: tuple[Key, pa.Table]) -> Iterable[RejectRecord]:
        key, rejects = batch
        metrics.count("items_rejected", rejects.num_rows)
        with metrics.timed("checkpoint"):
            return self._checkpoint.write_rejects(key, self._step, rejects)


class _WriteRecords(beam.DoFn):  # type: ignore[misc]
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, group: tuple[int, Iterable[Any]]) -> Iterator[str]:
        for name, table in zip(("parts", "files"), record_tables(group[1]), strict=True):
            uri = filesystem.join(self._folder, f"{name}.parquet")
            write_table(uri, table)
            yield filesystem.as_text(uri)  # for who looks at it: a coder takes valid text alone
