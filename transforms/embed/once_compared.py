"""Lets shards through to the fused stage of the same job once a comparison has found nothing against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.pvalue import AsIter

from transforms.diff import Findings
from transforms.embed.int8_texts import keep_texts
from transforms.embed.public.read_items import ShardWork
from transforms.embed.stage import Embedding
from transforms.read import ShardRange
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn


@dataclass(frozen=True)
class FoundBounds:
    """What a comparison may find so that its job embeds. Whatever is beyond is for the process that starts the run.

    Attributes:
        deleted: most items of the snapshot that may be gone.
        items: fewest items that the corpus may have.
    """

    deleted: float = math.inf
    items: float = 0.0


class OnceCompared(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardRange` -> PCollection of `ShardWork`, of all shards or of none.

    None comes where ids are not unique, because which items are left out determines the names of parts; where
    unchanged files must be read as well, because these have ids of changed ones; and beyond the bounds. Before the
    first one comes, the texts that int8 takes its ranges from are kept.

    Attributes:
        found: names of the files that `transforms.diff.FindChanges` writes. No shard comes before all are written.
        findings: these files.
        embedding: what the shards are for.
        bounds: of what may be found.
    """

    def __init__(self, found: beam.PCollection, findings: Findings, embedding: Embedding, bounds: FoundBounds) -> None:
        super().__init__()
        self.found = found
        self.findings = findings
        self.embedding = embedding
        self.bounds = bounds

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        judge = _Judge(self.findings.folder, self.embedding, self.bounds)
        allowed = shards.pipeline | "Once" >> beam.Impulse() | "Judge" >> beam.ParDo(judge, AsIter(self.found))
        work = beam.ParDo(_Work(self.findings.folder, self.embedding.base is not None), AsIter(allowed))
        return shards | "Work" >> work


class _Judge(VersionedDoFn):
    """Emits one element if the shards may come."""

    def __init__(self, folder: str, embedding: Embedding, bounds: FoundBounds) -> None:
        self._folder = folder
        self._embedding = embedding
        self._bounds = bounds

    def process(self, _: bytes, found: Iterable[str]) -> Iterator[bool]:
        for _uri in found:  # only now is everything written
            pass
        given, findings = self._embedding, Findings(self._folder)
        if findings.duplicates.num_rows or findings.conflicts or findings.deleted > self._bounds.deleted:
            return
        before = given.base.open().total("items") if given.base is not None else None
        if findings.items_left(before) < self._bounds.items:
            return
        if given.sample:
            keep_texts(given.sample, findings.sample, given.config, given.models)
        yield True


class _Work(VersionedDoFn):
    def __init__(self, folder: str, has_plans: bool) -> None:
        self._folder = folder
        self._has_plans = has_plans

    def process(self, shard: ShardRange, allowed: Iterable[bool]) -> Iterator[ShardWork]:
        if not any(allowed):
            return
        plan = Findings(self._folder).plan_uri(str(shard.index)) if self._has_plans else ""
        # A shard without any item has no plan.
        yield ShardWork(shard, {}, plan if plan and filesystem.exists(plan) else "")
