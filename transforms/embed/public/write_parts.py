"""`WriteParts` and `WriteRejects`: rows and rejects to the checkpoint, as steps of a user's pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa

from schemas.config import Config
from schemas.errors import CheckpointError
from schemas.layout import Layout
from schemas.records import Key, RejectRecord
from schemas.rejects import rejects_table
from transforms.checkpoint import Checkpoint, spaces_of
from transforms.checkpoint.embedded import EmbeddedBatch
from transforms.embed.reuse import items_beside
from transforms.encoders.models import Described, configured
from transforms.support import metrics
from transforms.support.versioned_dofn import VersionedDoFn


@dataclass(eq=False)
class WriteParts(beam.PTransform):  # type: ignore[misc]
    """PCollection of `(Key, rows)` from `Embed` -> the same, each once its part is durable.

    An existing part stays unchanged. Parts that no snapshot names are garbage to `vecbeam gc`, so give
    such a pipeline a `name` of its own.

    Attributes:
        config: a configuration, or the path of its file.
        models: what the encoders are; by default found when the pipeline is built.
    """

    config: Config | str
    models: Described | None = None

    def expand(self, rows: beam.PCollection) -> beam.PCollection:
        config, (layout, _) = configured(self.config, self.models, spaces_of)
        checkpoint = Checkpoint(config.checkpoint, config.name, layout.space.id)
        return rows | "Write" >> beam.ParDo(_WriteRows(checkpoint, layout))


class _WriteRows(VersionedDoFn):
    def __init__(self, checkpoint: Checkpoint, layout: Layout) -> None:
        self._checkpoint = checkpoint
        self._layout = layout

    def setup(self) -> None:
        self._checkpoint.write_space(self._layout.space)

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[tuple[Key, pa.Table]]:
        key, rows = batch
        facts = rows.schema.metadata or {}
        if b"part" not in facts:
            raise CheckpointError(
                f"the rows of {key} do not name their part",
                "keep the schema metadata that Embed gives: table.replace_schema_metadata(rows.schema.metadata)",
            )
        name = facts[b"part"].decode()
        with metrics.timed("checkpoint"):
            if self._checkpoint.find_part(key, name) is None:
                runtime, padded = json.loads(facts[b"runtime"]), int(facts[b"tokens_padded"])
                whole = rows.select(self._layout.rows.names).cast(self._layout.rows)
                made = EmbeddedBatch(whole, rejects_table([]), padded, runtime)
                self._checkpoint.write_part(key, name, made, items_beside(whole, rows))
        yield batch


@dataclass(eq=False)
class WriteRejects(beam.PTransform):  # type: ignore[misc]
    """PCollection of `(Key, rejects)` of one step -> PCollection of `RejectRecord`, each once its file is durable.

    Attributes:
        checkpoint: where to write them, or a configuration (or the path of its file) with it.
        step: read, chunk or embed.
    """

    checkpoint: Checkpoint | Config | str
    step: str

    def expand(self, rejects: beam.PCollection) -> beam.PCollection:
        return rejects | "Write" >> beam.ParDo(_WriteRejects(_checkpoint_of(self.checkpoint), self.step))


def _checkpoint_of(given: Checkpoint | Config | str) -> Checkpoint:
    if isinstance(given, Checkpoint):
        return given
    config, (layout, _) = configured(given, None, spaces_of)
    return Checkpoint(config.checkpoint, config.name, layout.space.id)


class _WriteRejects(VersionedDoFn):
    def __init__(self, checkpoint: Checkpoint, step: str) -> None:
        self._checkpoint = checkpoint
        self._step = step

    def process(self, batch: tuple[Key, pa.Table]) -> Iterable[RejectRecord]:
        key, rejects = batch
        metrics.count("items_rejected", rejects.num_rows)
        with metrics.timed("checkpoint"):
            return self._checkpoint.write_rejects(key, self._step, rejects)
