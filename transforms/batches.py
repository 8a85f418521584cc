"""From shards to parts: the PTransforms of the one fused stage, read -> chunk -> embed -> checkpoint.

This file holds almost no logic. Work lives in `transforms.read`, `transforms.chunk`, `transforms.embed` and
`transforms.checkpoint`; here it is wired, timed and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.pvalue import TaggedOutput

from schemas.config import Config
from schemas.identity import batch_digest
from schemas.records import BATCH_SCHEMA, SCHEMA_VERSION, Key, PartRecord, ReadRecord, RejectRecord
from transforms import metrics, stopping
from transforms.checkpoint import Checkpoint, part_name, write_table
from transforms.chunk import Chunker
from transforms.embed import EmbeddedBatch, TableModelHandler
from transforms.encoders import TextModel
from transforms.read import Shard, read_shard
from transforms.rejects import Reject, rejects_table


class ShardWork(NamedTuple):
    """A shard to read, without the items that another item's id stands for.

    `duplicates` maps (ordinal, row of its batch) to where the item that is kept stands.
    """

    shard: Shard
    duplicates: dict[tuple[int, int], str]


@dataclass(eq=False)
class EmbedShards(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardWork` -> PCollection of records (`ReadRecord`, `RejectRecord`, `PartRecord`).

    What comes out is small; each record is emitted after its file is durable.

    Attributes:
        config: the configuration.
        model: the encoder's model.
        checkpoint: where parts and rejects go.
    """

    config: Config
    model: TextModel
    checkpoint: Checkpoint

    def expand(self, work: beam.PCollection) -> beam.PCollection:
        read = work | "Read" >> beam.ParDo(_Read(self.config)).with_outputs("records", "rejects", main="batches")
        chunked = read.batches | "Chunk" >> beam.ParDo(_Chunk(self.config, self.model)).with_outputs(
            "rejects", main="batches"
        )
        sought = chunked.batches | "FindPart" >> beam.ParDo(_FindPart(self.checkpoint)).with_outputs(
            "found", main="batches"
        )
        handler = KeyedModelHandler(TableModelHandler(self.config.encoder, self.checkpoint.space_id))
        embedded = sought.batches | "Embed" >> RunInference(handler)
        parts = embedded | "Checkpoint" >> beam.ParDo(_WritePart(self.checkpoint))
        read_rejects = read.rejects | "ReadRejects" >> beam.ParDo(_WriteRejects(self.checkpoint, "read"))
        chunk_rejects = chunked.rejects | "ChunkRejects" >> beam.ParDo(_WriteRejects(self.checkpoint, "chunk"))
        return (read.records, sought.found, parts, read_rejects, chunk_rejects) | "Records" >> beam.Flatten()


@dataclass(eq=False)
class WriteBatchRecords(beam.PTransform):  # type: ignore[misc]
    """PCollection of records -> one Parquet file of `schemas.records.BATCH_SCHEMA` at `uri`, in no special order."""

    uri: str

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        return (
            records
            | "Together" >> beam.Map(_with_one_key)
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(_WriteRecords(self.uri))
        )


def _with_one_key(record: Any) -> tuple[int, Any]:
    return 0, record


class _Read(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: Config) -> None:
        self._config = config

    def process(self, work: ShardWork) -> Iterator[Any]:
        batches = read_shard(work.shard, self._config.corpus, batch_rows=self._config.batch_rows)
        while True:
            stopping.check()
            with metrics.timed("read"):
                batch = next(batches, None)
            if batch is None:
                return
            metrics.count("items_read", batch.items_read)
            metrics.count("bytes_read", batch.bytes_read)
            items, duplicates = _without(batch.items, batch.key, work.duplicates)
            files = tuple((f.path, f.size, f.modified) for f in work.shard.files) if batch.key.ordinal == 0 else ()
            yield TaggedOutput("records", ReadRecord(batch.key, batch.items_read, batch.bytes_read, files))
            rejects = pa.concat_tables([batch.rejects, duplicates])
            if rejects.num_rows:
                yield TaggedOutput("rejects", (batch.key, rejects))
            yield batch.key, items


def _without(items: pa.Table, key: Key, duplicates: dict[tuple[int, int], str]) -> tuple[pa.Table, pa.Table]:
    rows = [row for ordinal, row in duplicates if ordinal == key.ordinal]
    if not rows:
        return items, rejects_table([])
    gone = items.take(pa.array(sorted(rows), pa.int64())).select(["item_id", "uri", "place"]).to_pylist()
    rejects = rejects_table(
        Reject(
            item["item_id"],
            item["uri"],
            item["place"],
            "read",
            "DuplicateId",
            f"the id stands twice; kept is the item at {duplicates[key.ordinal, row]}",
        )
        for row, item in zip(sorted(rows), gone, strict=True)
    )
    keep = np.ones(items.num_rows, bool)
    keep[rows] = False
    return items.filter(pa.array(keep)), rejects


class _Chunk(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: Config, model: TextModel) -> None:
        self._config = config
        self._model = model

    @cached_property
    def _chunker(self) -> Chunker:
        return Chunker(self._config, self._model)

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[Any]:
        key, items = batch
        with metrics.timed("chunk"):
            chunks, rejects = self._chunker.chunk(items)
        if rejects.num_rows:
            yield TaggedOutput("rejects", (key, rejects))
        yield key, chunks


class _FindPart(beam.DoFn):  # type: ignore[misc]
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[Any]:
        key, chunks = batch
        if chunks.num_rows == 0:
            return
        with metrics.timed("checkpoint"):
            name = part_name(key, batch_digest(chunks, self._checkpoint.space_id, SCHEMA_VERSION))
            part = self._checkpoint.find_part(key, name)
        if part is None:
            yield key, chunks.replace_schema_metadata({b"part": name.encode()})
            return
        _count_done(part)
        yield from (TaggedOutput("found", record) for record in (*part.rejects, part))


class _WritePart(beam.DoFn):  # type: ignore[misc]
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def process(self, batch: tuple[Key, EmbeddedBatch]) -> Iterator[PartRecord | RejectRecord]:
        key, embedded = batch
        with metrics.timed("checkpoint"):
            name = embedded.rows.schema.metadata[b"part"].decode()
            part = self._checkpoint.write_part(key, name, embedded)
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
    def __init__(self, uri: str) -> None:
        self._uri = uri

    def process(self, group: tuple[int, Iterable[Any]]) -> Iterator[str]:
        write_table(self._uri, batch_records(group[1]))
        yield self._uri


def batch_records(records: Iterable[ReadRecord | RejectRecord | PartRecord]) -> pa.Table:
    """Records of all steps, merged to a row a batch (`schemas.records.BATCH_SCHEMA`), by shard and ordinal."""
    rows: dict[Key, dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault(record.key, _empty_row(record.key))
        if isinstance(record, ReadRecord):
            row["items_read"], row["bytes_read"] = record.items_read, record.bytes_read
            row["files"] = [dict(zip(("path", "size", "modified"), file, strict=True)) for file in record.files]
        elif isinstance(record, RejectRecord):
            row["rejects"] = sorted({*row["rejects"], record.name})
            row["errors"] = row["errors"] + [{"error": error, "count": count} for error, count in record.errors]
        else:
            facts = record._asdict()
            row.update({name: facts[name] for name in facts if name in row and name != "rejects"}, part=record.name)
    ordered = [rows[key] for key in sorted(rows)]
    return pa.Table.from_pylist(ordered, schema=BATCH_SCHEMA)


def _empty_row(key: Key) -> dict[str, Any]:
    counts = ("rows", "items", "tokens", "tokens_dropped", "tokens_padded", "bytes", "items_read", "bytes_read")
    return {
        "shard": key.shard,
        "ordinal": key.ordinal,
        "part": None,
        "embedded": False,
        "errors": [],
        "rejects": [],
        "files": [],
        **dict.fromkeys(counts, 0),
    }
