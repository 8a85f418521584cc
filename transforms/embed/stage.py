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
from transforms.checkpoint import Checkpoint, part_name, write_table
from transforms.checkpoint.embedded import EmbeddedTable
from transforms.checkpoint.part_digest import batch_digest
from transforms.diff import SnapshotSide
from transforms.embed.embed_chunks import EmbedChunks
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
    """

    config: Config
    layout: Layout
    cutting: tuple[str, ...]
    checkpoint: Checkpoint
    listing: str
    base: SnapshotSide | None = None
    salt: str = ""
    sample: str = ""


@dataclass(eq=False)
class EmbedShards(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardWork` -> PCollection of records (`ReadRecord`, `RejectRecord`, `PartRecord`).

    The records are small; each is emitted after its file is durable.
    """

    embedding: Embedding

    def expand(self, work: beam.PCollection) -> beam.PCollection:
        given = self.embedding
        checkpoint = given.checkpoint
        models = Described(given.layout, given.cutting)
        read = work | "Read" >> ReadShards(given.config, given.listing)
        chunked = read["batches"] | "Chunk" >> Chunk(given.config, models)
        sought = chunked.batches | "FindPart" >> beam.ParDo(_FindPart(given)).with_outputs("found", main="batches")
        embedded = sought.batches | "Embed" >> EmbedChunks(given.config, models, given.sample)
        parts = embedded | "Checkpoint" >> beam.ParDo(_WritePart(given))
        read_rejects = read["rejects"] | "ReadRejects" >> WriteRejects(checkpoint, "read")
        chunk_rejects = chunked.rejects | "ChunkRejects" >> WriteRejects(checkpoint, "chunk")
        return (read["records"], sought.found, parts, read_rejects, chunk_rejects) | "Records" >> beam.Flatten()


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
