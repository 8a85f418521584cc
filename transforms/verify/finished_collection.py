"""Finishes a collection on a worker, in the middle of a job that loads it before and compares it after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from schemas.config import Collection
from schemas.milvus import CollectionSpec
from transforms import milvus
from transforms.support import metrics
from transforms.verify.nearest_parts import QueriesIn
from transforms.verify.part_groups import SnapshotRows, WithRows


@dataclass(eq=False)
class FinishCollection(beam.PTransform):  # type: ignore[misc]
    """PCollection of what was written -> PCollection of the collection's name, once all of it is.

    One worker flushes, builds the index, loads the collection into Milvus' memory, and searches it for the recall of
    some vectors. Each of these steps first looks whether it is done, so that another worker may repeat it.

    Attributes:
        config: the collection's section of the configuration.
        spec: the collection.
        rows: what it should hold.
        queries: of each vector whose recall is measured, where its queries go.
        sample: how many rows serve as queries.
    """

    config: Collection
    spec: CollectionSpec
    rows: SnapshotRows
    queries: tuple[QueriesIn, ...] = ()
    sample: int = 0

    def expand(self, written: beam.PCollection) -> beam.PCollection:
        return (
            written.pipeline
            | "Once" >> beam.Impulse()
            | "AfterWrites" >> beam.WaitOn(written)
            | "Finish" >> beam.ParDo(_Finish(self))
        )


class _Finish(WithRows):
    def __init__(self, given: FinishCollection) -> None:
        super().__init__(given.rows)
        self._config, self._spec = given.config, given.spec
        self._queries, self._sample = given.queries, given.sample
        self._connection: Any = None

    def setup(self) -> None:
        super().setup()
        self._connection = milvus.connect(self._config, create=False)

    def process(self, _: bytes) -> Iterator[str]:
        with metrics.timed("index"):
            milvus.finish(self._connection, self._spec)
        with metrics.timed("verify"):
            for queries in self._queries:
                # Workers may be at work on the queries of a first attempt, whose hits need not be the same.
                if not queries.exists:
                    queries.ask(self._connection, self._spec, self._rows, self._sample)
        yield self._spec.name

    def teardown(self) -> None:
        if self._connection is not None:
            self._connection.close()
