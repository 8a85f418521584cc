"""`Embed`: chunks to rows with their vectors, as a step of a user's pipeline."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.shared import Shared

from schemas.config import Config
from schemas.layout import SOURCE_ROW, Layout, item_facts
from schemas.records import SCHEMA_VERSION, Key
from transforms.checkpoint import Checkpoint, part_name, spaces_of
from transforms.checkpoint.embedded import EmbeddedBatch, EmbeddedTable
from transforms.checkpoint.part_digest import batch_digest
from transforms.embed.attempts import Attempts
from transforms.embed.lazy_encoders import LazyEncoders
from transforms.embed.rows import Filler, embed_table, nothing_embedded
from transforms.encoders.models import Described, configured
from transforms.support import metrics
from transforms.support.amounts import amounts_of
from transforms.support.outputs import Outputs
from transforms.support.versioned_dofn import VersionedDoFn

AHEAD = 2
"""Batches that are embedded elsewhere while this process continues. Each is in memory, and lost with the process."""


@dataclass(eq=False)
class Embed(beam.PTransform):  # type: ignore[misc]
    """PCollection of `(Key, chunks)` -> `(Key, rows)`, and `.rejects`.

    A row has the columns of `Layout.rows`, and those that begin with @, which `WriteParts` needs. The model loads once
    in a worker process; a configuration's `accelerator` is a hint to the runner.

    Attributes:
        config: a configuration, or the path of its file.
        models: what the encoders are; by default found when the pipeline is built.

    >>> import vecbeam
    >>> values = {"name": "a", "corpus": {"paths": "-"}, "encoder": {"model": "fake"}, "checkpoint": "c"}
    >>> config = vecbeam.parse_config({**values, "collection": {"uri": "./m.db"}})
    >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
    ...     records = pipeline | beam.Create([{"id": "a", "text": "A text."}])
    ...     items = records | vecbeam.ItemsFromRecords(config, shards=1)
    ...     rows = (items.batches | vecbeam.Chunk(config)).batches | vecbeam.Embed(config)
    ...     _ = rows.batches | beam.Map(lambda batch: print(batch[0], batch[1].column("id").to_pylist()))
    Key(shard='records-00000', ordinal=0) ['a#0']
    """

    config: Config | str
    models: Described | None = None

    def expand(self, chunks: beam.PCollection) -> Outputs:
        config, models = configured(self.config, self.models, spaces_of)
        # On each of the parts: a hint on some of them would send chunks and vectors from one worker to another.
        hints = resource_hints(config)
        rows = (
            chunks
            | "Name" >> beam.FlatMap(_named, models.layout.space.id).with_resource_hints(**hints)
            | "Embed" >> EmbedChunks(config, models).with_resource_hints(**hints)
            | "Rows"
            >> beam.ParDo(_Rows(models.layout)).with_resource_hints(**hints).with_outputs("rejects", main="batches")
        )
        return Outputs(rows.batches, rows.rejects)


@dataclass(eq=False)
class EmbedChunks(beam.PTransform):  # type: ignore[misc]
    """PCollection of `(Key, chunks with @source_row)` -> `(Key, EmbeddedTable)`.

    Attributes:
        config: the configuration.
        models: what the encoders are.
        sample: table of texts from which int8 determines its ranges; "" for none.
        checkpoint: where markers of attempts are; without it a worker that dies on a batch leaves no trace.
        ahead: whether vectors of a batch may come after later batches; everything is in the global window then.
    """

    config: Config
    models: Described
    sample: str = ""
    checkpoint: Checkpoint | None = None
    ahead: bool = False

    def expand(self, chunks: beam.PCollection) -> beam.PCollection:
        return chunks | "Embed" >> beam.ParDo(_Embed(self))


def resource_hints(config: Config) -> dict[str, str]:
    """Beam's resource hints for the workers that embed; {} where no encoder has an accelerator."""
    if config.accelerator is None:
        return {}
    hints = {"accelerator": config.accelerator}
    return {**hints, "min_ram": config.min_ram} if config.min_ram else hints


class _Pending(NamedTuple):
    """A batch that is being embedded, and what will be of it, with what was counted meanwhile."""

    key: Key
    chunks: pa.Table
    found: Future[tuple[EmbeddedBatch, Counter[str]]]

    def finished(self) -> tuple[Key, EmbeddedTable]:
        """Waits for the vectors, and counts in the thread of the pipeline."""
        embedded, counts = self.found.result()
        for name, value in counts.items():
            metrics.count(name, value)
        return self.key, EmbeddedTable(self.chunks, embedded)


class _Embed(VersionedDoFn):
    """One model of each vector lives in a worker process, whatever number of threads it has.

    Where a GPU or a server computes the vectors, this process would do nothing meanwhile: it reads and chunks the next
    batches instead, and writes the part of the last one.
    """

    def __init__(self, given: EmbedChunks) -> None:
        self._layout = given.models.layout
        self._load = partial(LazyEncoders, given.config, given.models.layout, given.models.cutting, given.sample)
        self._shared = Shared()
        self._encoders: LazyEncoders | None = None
        self._checkpoint = given.checkpoint
        self._most = AHEAD if given.ahead else 0
        self._threads: ThreadPoolExecutor | None = None
        self._pending: deque[_Pending] = deque()

    def setup(self) -> None:
        self._encoders = self._shared.acquire(self._load)

    def start_bundle(self) -> None:
        self._pending.clear()  # of a bundle that failed

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[tuple[Key, EmbeddedTable]]:
        key, chunks = batch
        if not pc.any(pc.equal(chunks.column(SOURCE_ROW), -1)).as_py():
            yield key, EmbeddedTable(chunks, nothing_embedded(chunks, self._layout))
            return
        assert self._encoders is not None
        fillers = self._encoders.get()
        if not self._most or all(filler.encoder.runtime().get("device") == "cpu" for filler in fillers):
            yield key, EmbeddedTable(chunks, self._embedded(chunks, fillers))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._most, thread_name_prefix="embed")
        self._pending.append(_Pending(key, chunks, self._threads.submit(self._aside, chunks, fillers)))
        while len(self._pending) > self._most:
            yield self._pending.popleft().finished()

    def finish_bundle(self) -> Iterator[Any]:
        while self._pending:
            yield GlobalWindows.windowed_value(self._pending.popleft().finished())

    def teardown(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _aside(self, chunks: pa.Table, fillers: Sequence[Filler]) -> tuple[EmbeddedBatch, Counter[str]]:
        with metrics.set_aside() as counts:
            return self._embedded(chunks, fillers), counts

    def _embedded(self, chunks: pa.Table, fillers: Sequence[Filler]) -> EmbeddedBatch:
        waiting = chunks.filter(pc.equal(chunks.column(SOURCE_ROW), -1))
        with metrics.timed("embed"), metrics.ahead(waiting) as advance:
            if self._checkpoint is None:
                embedded = embed_table(waiting, fillers, self._layout, advance)
            else:
                embedded = Attempts(self._checkpoint.attempt_uri).embed(chunks, fillers, self._layout, advance)
        metrics.count("chunks_embedded", len(embedded.rows))
        metrics.count("tokens_embedded", int(amounts_of(embedded.rows).taken.sum()))
        metrics.count("tokens_padded", embedded.tokens_padded)
        return embedded


def _named(batch: tuple[Key, pa.Table], space_id: str) -> Iterator[tuple[Key, pa.Table]]:
    """A batch with the name of its part, which its chunks determine; every chunk must be embedded."""
    key, chunks = batch
    if chunks.num_rows:
        name = part_name(key, batch_digest(chunks, space_id, SCHEMA_VERSION))
        none = pa.array(np.full(chunks.num_rows, -1, np.int32))
        sought = chunks.append_column(pa.field(SOURCE_ROW, pa.int32(), nullable=False), none)
        yield key, sought.replace_schema_metadata({b"part": name.encode()})


class _Rows(VersionedDoFn):
    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def process(self, batch: tuple[Key, EmbeddedTable]) -> Iterator[Any]:
        key, embedded = batch
        if embedded.batch.rejects.num_rows:
            yield TaggedOutput("rejects", (key, embedded.batch.rejects))
        yield key, rows_with_facts(embedded)


def rows_with_facts(embedded: EmbeddedTable) -> pa.Table:
    """The rows of a completely embedded batch, each with the facts of its item.

    Its schema's metadata has `part` (the name of its part), `runtime` (JSON) and `tokens_padded`.
    """
    chunks, batch = embedded
    gone = pa.array(sorted(set(batch.rejects.column("id").to_pylist())), pa.string())
    kept = chunks.filter(pc.invert(pc.is_in(chunks.column("item_id"), gone)))
    rows = batch.rows
    for field in item_facts():
        rows = rows.append_column(field, kept.column(field.name))
    made = {b"runtime": json.dumps(dict(batch.runtime)).encode(), b"tokens_padded": str(batch.tokens_padded).encode()}
    return rows.replace_schema_metadata({b"part": chunks.schema.metadata[b"part"], **made})
