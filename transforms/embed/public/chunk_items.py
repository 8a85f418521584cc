"""`Chunk`: items to chunks, as a step of a user's pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from schemas.config import Config
from schemas.records import Key
from transforms.checkpoint import spaces_of
from transforms.encoders.models import Described, chunker_on_worker, configured
from transforms.support import metrics
from transforms.support.outputs import Outputs
from transforms.support.versioned_dofn import VersionedDoFn


@dataclass(eq=False)
class Chunk(beam.PTransform):  # type: ignore[misc]
    """PCollection of `(Key, items)` -> `(Key, chunks)` for the encoders, and `.rejects`.

    Attributes:
        config: a configuration, or the path of its file.
        models: what the encoders are; by default found when the pipeline is built.
    """

    config: Config | str
    models: Described | None = None

    def expand(self, items: beam.PCollection) -> Outputs:
        config, models = configured(self.config, self.models, spaces_of)
        chunked = items | "Chunk" >> beam.ParDo(_Chunk(config, models)).with_outputs("rejects", main="batches")
        return Outputs(chunked.batches, chunked.rejects)


class _Chunk(VersionedDoFn):
    def __init__(self, config: Config, models: Described) -> None:
        self._given = (config, models.layout, models.cutting)

    def setup(self) -> None:
        self._chunker = chunker_on_worker(*self._given)

    def process(self, batch: tuple[Key, pa.Table]) -> Iterator[Any]:
        key, items = batch
        with metrics.timed("chunk"):
            chunks, rejects = self._chunker.chunk(items)
        if rejects.num_rows:
            yield TaggedOutput("rejects", (key, rejects))
        yield key, chunks
