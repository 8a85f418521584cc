"""The two sides of a diff as digests: the items of the files that are read, and those of the snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput

from schemas.config import Config
from schemas.identity import row_id
from schemas.layout import ITEM_MODALITY, LOCATOR
from transforms.diff.comparison import buckets_of, pack, split
from transforms.diff.digest import chunking_of, is_sampled, new_digests, old_digests
from transforms.diff.findings import (
    ERRORS_SCHEMA,
    FIRST_REJECTS_SCHEMA,
    SAMPLE_SCHEMA,
    SURVEYED_SCHEMA,
    SnapshotSide,
)
from transforms.read import CONTAINER_ERRORS, ShardFiles, ShardRange, read_shard
from transforms.support import metrics, stop
from transforms.support.storage.stored_table import StoredTable
from transforms.support.versioned_dofn import VersionedDoFn

GATHERED_ROWS = 50_000
ID_TOO_LONG = "IdTooLong"
FIRST_REJECTS = 5
"""Most rejects of a shard that are listed."""


class DigestShards(VersionedDoFn):
    """`ShardRange` -> tables of digests by bucket, the positions of `broken` files, and `tables` of findings.

    Args:
        listing: table of `transforms.read.shard.TO_READ`.
        buckets: number of buckets that the items are shuffled into.
        whole: whether contents are compared too, not ids alone.
        sampling: share of the items that go into the sample.
    """

    def __init__(self, config: Config, listing: str, buckets: int, whole: bool, sampling: float) -> None:
        self._config = config
        self._files = ShardFiles(listing)
        self._chunking = chunking_of(config)
        self._buckets = buckets
        self._whole = whole
        self._sampling = sampling

    def process(self, given: ShardRange) -> Iterator[Any]:
        shard, gathered = self._files.open(given), _Buckets(self._buckets)
        files = {file.shown: position for file, position in zip(shard.files, shard.positions, strict=True)}
        errors: Counter[str] = Counter()
        items, size = 0, 0
        for batch in read_shard(shard, self._config.corpus, batch_rows=self._config.batch_rows):
            stop.check()
            metrics.count("items_surveyed", batch.items_read)
            place = (shard.index, batch.key.ordinal)
            digests = new_digests(batch.items, place, files, self._chunking, whole=self._whole)
            content = pc.sum(digests.column("size")).as_py() or 0
            metrics.count("content_bytes", content)
            items, size = items + batch.items_read, size + content
            yield from gathered.add(digests)
            yield from self._sample(batch.items, digests)
            for reject in batch.rejects.select(["uri", "error"]).to_pylist():
                if reject["error"] in CONTAINER_ERRORS:
                    yield TaggedOutput("broken", files[reject["uri"]])
            if (named := batch.rejects.slice(0, max(0, FIRST_REJECTS - errors.total()))).num_rows:
                indexes = pa.array([shard.index] * named.num_rows, pa.int32())
                named = named.append_column(FIRST_REJECTS_SCHEMA.field("shard"), indexes)
                yield TaggedOutput("tables", ("rejects", named.cast(FIRST_REJECTS_SCHEMA)))
            errors.update(batch.rejects.column("error").to_pylist())
            if long := self._too_long(batch.items):
                errors[ID_TOO_LONG] += long
        if errors:
            counted = [{"error": error, "count": number} for error, number in errors.items()]
            yield TaggedOutput("tables", ("errors", pa.Table.from_pylist(counted, schema=ERRORS_SCHEMA)))
        yield TaggedOutput("tables", ("surveyed", pa.table([[items], [size]], schema=SURVEYED_SCHEMA)))
        yield from gathered.rest()

    def _too_long(self, items: pa.Table) -> int:
        """Items whose first row id is longer than Milvus accepts, which the chunker rejects."""
        lengths = pc.binary_length(items.column("item_id"))
        most = self._config.collection.id_max_bytes - len(row_id("", 0))
        return int(pc.sum(pc.greater(lengths, most)).as_py() or 0)

    def _sample(self, items: pa.Table, digests: pa.Table) -> Iterator[TaggedOutput]:
        chosen = np.flatnonzero(is_sampled(digests.column("digest"), self._sampling))
        if len(chosen):
            taken = items.take(pa.array(chosen))
            nothing = pa.array([""] * len(chosen))
            some = [taken.column(name) if name in taken.column_names else nothing for name in (LOCATOR, ITEM_MODALITY)]
            named = digests.column("digest").take(pa.array(chosen))
            columns = [taken.column("@content"), taken.column("@uri"), *some, named]
            yield TaggedOutput("tables", ("sample", pa.table(columns, schema=SAMPLE_SCHEMA)))


class _Buckets:
    """Gathers digests before it splits them: a table of a few rows would travel with more schema than data."""

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets
        self._tables: list[pa.Table] = []
        self._rows = 0

    def add(self, digests: pa.Table) -> Iterator[tuple[int, bytes]]:
        self._tables.append(digests)
        self._rows += digests.num_rows
        if self._rows >= GATHERED_ROWS:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[int, bytes]]:
        if self._rows:
            table = pa.concat_tables(self._tables)
            self._tables, self._rows = [], 0
            for bucket, piece in split(table, buckets_of(table.column("key"), self._buckets)):
                yield bucket, pack(piece)


class DigestParts(VersionedDoFn):
    """Positions of parts of a snapshot -> tables of the digests of their items by bucket.

    Args:
        listing: table of `LISTING_SCHEMA`.
        buckets: number of buckets that the items are shuffled into.
    """

    def __init__(self, base: SnapshotSide, listing: str, buckets: int) -> None:
        self._base = base
        self._listing = listing
        self._buckets = buckets

    def setup(self) -> None:
        self._snapshot = self._base.open()
        self._files = StoredTable(self._listing)

    def process(self, parts: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
        gathered = _Buckets(self._buckets)
        for part in parts:
            stop.check()
            yield from gathered.add(self._digests(part))
        yield from gathered.rest()

    def _digests(self, part: int) -> pa.Table:
        live = self._snapshot.live_part(part)
        items = self._base.checkpoint.read_items(live.name)
        found = self._files.find("name", pc.unique(items.column("path")).to_pylist())
        files = {name: (row["position"], row["kept"]) for name, row in found.items()}
        return old_digests(items, part, live.dead, files)
