"""Lets shards through to the fused stage of the same job once a comparison has found no duplicate id in the corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.pvalue import AsIter

from transforms.embed.public.read_items import ShardWork
from transforms.read import ShardRange
from transforms.support.versioned_dofn import VersionedDoFn


class UnlessDuplicates(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardRange` -> PCollection of `ShardWork`, of each shard with all its items; or empty.

    Attributes:
        findings: names of the files that `transforms.diff.FindChanges` writes. No shard comes before all are written.
            If one has duplicates, none comes: which items are left out determines the names of parts.
    """

    def __init__(self, findings: beam.PCollection) -> None:
        super().__init__()
        self.findings = findings

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        duplicates = self.findings | "Duplicates" >> beam.ParDo(_Duplicates())
        return shards | "Unless" >> beam.ParDo(_Unless(), AsIter(duplicates))


class _Duplicates(VersionedDoFn):
    def process(self, uri: str) -> Iterator[str]:
        if uri.split("/")[-2] == "duplicates":
            yield uri


class _Unless(VersionedDoFn):
    def process(self, shard: ShardRange, duplicates: Iterable[str]) -> Iterator[ShardWork]:
        if next(iter(duplicates), None) is None:
            yield ShardWork(shard, {})
