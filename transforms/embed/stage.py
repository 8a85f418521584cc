"""From shards to parts: the PTransforms of the fused stage, read -> chunk -> embed -> checkpoint.

This file holds almost no logic. Work lives in `transforms.read`, `transforms.chunk.text`, `transforms.embed.rows` and
`transforms.checkpoint`; here it is wired, timed and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from schemas.config import Config
from schemas.layout import Layout
from schemas.records import SCHEMA_VERSION, Key, Kind, PartRecord, RejectRecord
from transforms.checkpoint import Checkpoint, part_key, part_name, write_table
from transforms.checkpoint.embedded import EmbeddedTable
from transforms.checkpoint.part_digest import batch_digest
from transforms.checkpoint.thumbnails import write_thumbnails
from transforms.diff import SnapshotSide
from transforms.embed.chunk_tables import ChunkTables
from transforms.embed.embed_chunks import EmbedChunks, resource_hints
from transforms.embed.part_thumbnails import part_thumbnails
from transforms.embed.public.chunk_items import Chunk
from transforms.embed.public.read_items import ReadShards
from transforms.embed.public.write_parts import WriteRejects
from transforms.embed.record import in_pieces, record_tables
from transforms.embed.reuse import assemble, items_beside, with_source_rows
from transforms.encoders.models import Described
from transforms.support import metrics
from transforms.support.amounts import amounts_of
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn


@dataclass(frozen=True)
class Embedding:
    """The settings of the fused stage; small enough to travel.

    It has no path of the machine that made it: each worker finds its own files of the model.

    Attributes:
        config: the configuration.
        layout: what a row holds; its spaces are what each worker's models must be of.
        cutting: see `transforms.encoders.models.Models.cutting`.
        checkpoint: where parts and rejects go.
        listing: the table of `transforms.read.shard.TO_READ` that the shards are ranges of.
        base: the snapshot that plans point into.
        salt: distinguishes parts that are embedded again on purpose.
        sample: table of texts from which int8 determines its ranges; "" for none.
        scratch: folder for tables of chunks on their way to workers with an accelerator.
    """

    config: Config
    layout: Layout
    cutting: tuple[str, ...]
    checkpoint: Checkpoint
    listing: str
    base: SnapshotSide | None = None
    salt: str = ""
    sample: str = ""
    scratch: str = ""

    @property
    def models(self) -> Described:
        return Described(self.layout, self.cutting)

    @property
    def chunk_tables(self) -> ChunkTables:
        return ChunkTables(self.scratch or filesystem.join(self.checkpoint.root, "runs", "chunks"), self.layout)

    @property
    def marks_attempts(self) -> bool:
        """Whether workers leave a marker while they embed: where one that dies does not end the command."""
        return self.config.accelerator is not None or not self.config.runner.is_local

    def remove_leftovers(self) -> None:
        """Deletes tables of chunks and markers of attempts, when the records of all parts are written."""
        if self.config.accelerator is not None:
            filesystem.delete_folder(self.chunk_tables.folder)
        self.forget_attempts()

    def forget_attempts(self) -> None:
        """Deletes markers of attempts, also when a job was ended on purpose: its workers died of nothing in a batch."""
        if self.marks_attempts:
            filesystem.delete_folder(self.checkpoint.attempts_folder)


@dataclass(eq=False)
class EmbedShards(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardWork` -> PCollection of records (`ReadRecord`, `RejectRecord`, `PartRecord`).

    The records are small; each is emitted after its file is durable. It is one stage. If an encoder has an accelerator,
    it is two: other workers read and chunk, and the names of tables of chunks travel.
    """

    embedding: Embedding

    def expand(self, work: beam.PCollection) -> beam.PCollection:
        given = self.embedding
        checkpoint = given.checkpoint
        read = work | "Read" >> ReadShards(given.config, given.listing)
        chunked = read["batches"] | "Chunk" >> Chunk(given.config, given.models)
        sought = chunked.batches | "FindPart" >> beam.ParDo(_FindPart(given)).with_outputs("found", main="batches")
        if hints := resource_hints(given.config):
            names = sought.batches | "WriteChunks" >> beam.ParDo(_WriteChunks(given)).with_output_types(str)
            spread = names | "SpreadNames" >> beam.Reshuffle()
            # The hints are on all of the second stage and on nothing else: Beam fuses only what has the same ones.
            parts = (spread | "EmbedTables" >> EmbedTables(given).with_resource_hints(**hints)).values()
        else:
            parts = [sought.batches | EmbedBatches(given)]
        read_rejects = read["rejects"] | "ReadRejects" >> WriteRejects(checkpoint, "read")
        chunk_rejects = chunked.rejects | "ChunkRejects" >> WriteRejects(checkpoint, "chunk")
        return (read["records"], sought.found, *parts, read_rejects, chunk_rejects) | "Records" >> beam.Flatten()


@dataclass(eq=False)
class EmbedBatches(beam.PTransform):  # type: ignore[misc]
    """PCollection of `(Key, chunks with @source_row)` -> PCollection of `PartRecord` and `RejectRecord`."""

    embedding: Embedding

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        given = self.embedding
        marked = given.checkpoint if given.marks_attempts else None
        embedded = batches | "Embed" >> EmbedChunks(given.config, given.models, given.sample, marked, ahead=True)
        return embedded | "Checkpoint" >> beam.ParDo(_WritePart(given))


@dataclass(eq=False)
class EmbedTables(beam.PTransform):  # type: ignore[misc]
    """PCollection of names of chunk tables -> a dict of PCollections of `PartRecord` and `RejectRecord`.

    `made` is what this run embedded, `found` what a worker had done before its bundle was repeated.
    """

    embedding: Embedding

    def expand(self, names: beam.PCollection) -> dict[str, beam.PCollection]:
        read = names | "ReadChunks" >> beam.ParDo(_ReadChunks(self.embedding)).with_outputs("found", main="batches")
        # A Flatten here would be a stage of its own on the accelerator.
        return {"made": read.batches | EmbedBatches(self.embedding), "found": read.found}


@dataclass(eq=False)
class WriteRecords(beam.PTransform):  # type: ignore[misc]
    """PCollection of records -> Parquet files in a folder, parts/*.parquet and files/*.parquet; see `read_records`.

    Attributes:
        folder: of the run.
        pieces: most files of each: a worker holds one in memory.
    """

    folder: str
    pieces: int = 1

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        return (
            records
            | "Piece" >> beam.ParDo(_Piece(self.pieces))
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(_WriteRecords(self.folder))
        )


class _Piece(VersionedDoFn):
    def __init__(self, pieces: int) -> None:
        self._pieces = pieces

    def process(self, record: Any) -> Iterator[tuple[int, Any]]:
        yield from in_pieces(record, self._pieces)


class _WithParts(VersionedDoFn):
    """Base of the steps that read the previous snapshot."""

    def __init__(self, embedding: Embedding) -> None:
        self._given = embedding
        self._checkpoint = embedding.checkpoint

    def setup(self) -> None:
        base = self._given.base
        self._part_names = base.open().part_names if base else []


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
                chunks = with_source_rows(chunks, self._checkpoint, self._part_names)
            yield key, chunks.replace_schema_metadata({b"part": name.encode()})
            return
        _count_done(part)
        yield from (TaggedOutput("found", record) for record in (*part.rejects, part))


class _WriteChunks(VersionedDoFn):
    def __init__(self, embedding: Embedding) -> None:
        self._tables = embedding.chunk_tables

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[str]:
        _, chunks = batch
        name = chunks.schema.metadata[b"part"].decode()
        with metrics.timed("checkpoint"):
            self._tables.write(name, chunks)
        yield name


class _ReadChunks(VersionedDoFn):
    def __init__(self, embedding: Embedding) -> None:
        self._checkpoint = embedding.checkpoint
        self._tables = embedding.chunk_tables

    def process(self, name: str) -> Iterator[Any]:
        key = part_key(name)
        with metrics.timed("checkpoint"):
            chunks = self._tables.read(name)
            part = self._checkpoint.find_part(key, name)
        if part is None:
            yield key, chunks
            return
        # A worker that died had come so far.
        part = part._replace(kinds=_kinds(chunks, self._checkpoint.read_items(name)))
        _count_done(part)
        yield from (TaggedOutput("found", record) for record in (*part.rejects, part))


def _kinds(chunks: pa.Table, items: pa.Table) -> tuple[int, int, int, int]:
    """Items of a part by how they relate to the previous snapshot."""
    kinds = dict(zip(chunks.column("@digest").to_pylist(), chunks.column("@kind").to_pylist(), strict=True))
    counts = Counter(kinds[digest] for digest in items.column("digest").to_pylist())
    return counts[Kind.NEW], counts[Kind.CHANGED], counts[Kind.MOVED], counts[Kind.RELOCATED]


class _WritePart(_WithParts):
    def process(self, batch: tuple[Key, EmbeddedTable]) -> Iterator[PartRecord | RejectRecord]:
        key, embedded = batch
        with metrics.timed("checkpoint"):
            name = embedded.chunks.schema.metadata[b"part"].decode()
            whole = assemble(embedded, self._checkpoint, self._part_names, self._given.layout)
            items = items_beside(whole.rows, embedded.chunks)
            if self._given.config.thumbnails:
                names, config = self._part_names, self._given.config
                pictures = part_thumbnails(whole.rows, embedded.chunks, self._checkpoint, names, config)
                write_thumbnails(self._checkpoint, name, pictures)
            part = self._checkpoint.write_part(key, name, whole, items)
        part = part._replace(
            rows_embedded=embedded.batch.rows.num_rows,
            tokens_embedded=int(amounts_of(embedded.batch.rows).taken.sum()),
            kinds=_kinds(embedded.chunks, items),
        )
        _count_done(part)
        yield from part.rejects
        yield part


def _count_done(part: PartRecord) -> None:
    metrics.count("items_done", part.items)
    metrics.count("chunks_done", part.rows)


class _WriteRecords(VersionedDoFn):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, group: tuple[int, Iterable[Any]]) -> Iterator[str]:
        piece, records = group
        for name, table in zip(("parts", "files"), record_tables(records), strict=True):
            uri = filesystem.join(self._folder, name, f"{piece}.parquet")
            write_table(uri, table)
            yield filesystem.as_text(uri)  # for readers: a coder accepts only valid text
