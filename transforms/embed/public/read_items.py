"""`ReadItems`: the files of a configuration to items, as the first step of a user's pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from schemas.config import Config
from schemas.config.loader import as_config
from schemas.records import Key, ReadRecord
from schemas.rejects import Reject, rejects_table
from transforms.checkpoint import read_table
from transforms.diff import chunking_of
from transforms.embed.work import Gathered, ShardPlan, with_facts
from transforms.read import SHARD_RANGES, Own, Shard, ShardFiles, ShardRange, list_corpus, plan_shards, read_shard
from transforms.support import metrics, stop
from transforms.support.outputs import Outputs
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.support.work_rows import WorkRows


class ShardWork(NamedTuple):
    """A shard to read, without the items whose id another item has.

    Attributes:
        shard: what to read.
        duplicates: maps (ordinal, row of its batch) to the place of the kept item.
        plan: a table of `transforms.diff.comparison.WORK_SCHEMA` that says what to do with each item; "" embeds all.
    """

    shard: Shard | ShardRange
    duplicates: dict[tuple[int, int], str]
    plan: str = ""


def _work_row(work: ShardWork) -> dict[str, Any]:
    assert isinstance(work.shard, ShardRange)
    kept = [{"ordinal": at, "row": row, "kept": place} for (at, row), place in work.duplicates.items()]
    # A path may have bytes that are not valid text.
    plan = work.plan.encode("utf-8", "surrogatepass")
    return {**SHARD_RANGES.to_row(work.shard), "duplicates": kept, "plan": plan}


def _work_of(row: dict[str, Any]) -> ShardWork:
    duplicates = {(one["ordinal"], one["row"]): one["kept"] for one in row.pop("duplicates")}
    plan = row.pop("plan").decode("utf-8", "surrogatepass")
    return ShardWork(SHARD_RANGES.from_row(row), duplicates, plan)


_DUPLICATE = pa.struct([("ordinal", pa.int64()), ("row", pa.int64()), ("kept", pa.string())])
SHARD_WORK = WorkRows(
    SHARD_RANGES.schema.append(pa.field("duplicates", pa.list_(_DUPLICATE))).append(pa.field("plan", pa.binary())),
    _work_row,
    _work_of,
)
"""How a `ShardWork` of a `ShardRange` travels."""


@dataclass(eq=False)
class ReadItems(beam.PTransform):  # type: ignore[misc]
    """Beginning of a pipeline -> `(Key, items)` of all files that `corpus.paths` matches, and `.rejects`.

    The files are listed when the pipeline is built; workers read them. Keys follow from the files' names and the
    configuration. Two items with one id are not noticed: `vecbeam backfill` does that.

    Attributes:
        config: a configuration, or the path of its file.
    """

    config: Config | str

    def expand(self, begin: beam.pvalue.PBegin) -> Outputs:
        config = as_config(self.config)
        work = [
            ShardWork(shard, {}) for shard in plan_shards(list_corpus(config.corpus, Own.of(config)), config.corpus)
        ]
        read = begin | "Shards" >> beam.Create(work) | "Spread" >> beam.Reshuffle() | "Read" >> ReadShards(config)
        return Outputs(read["batches"], read["rejects"])


@dataclass(eq=False)
class ReadShards(beam.PTransform):  # type: ignore[misc]
    """PCollection of `ShardWork` -> a dict of PCollections: `batches`, `rejects`, and `records` (`ReadRecord`).

    Attributes:
        config: the configuration.
        listing: the table of `transforms.read.shard.TO_READ` that shards are ranges of; "" where each has its files.
    """

    config: Config
    listing: str = ""

    def expand(self, work: beam.PCollection) -> dict[str, beam.PCollection]:
        read = work | "Read" >> beam.ParDo(_ReadShard(self.config, self.listing)).with_outputs(
            "records", "rejects", main="batches"
        )
        return {"batches": read.batches, "rejects": read.rejects, "records": read.records}


class _ReadShard(VersionedDoFn):
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
