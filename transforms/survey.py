"""The survey: which items there are and which ids stand twice, found out before a GPU-second is spent.

Items are read once for their ids alone; only digests are shuffled, as Arrow tables by hash bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.config import Config
from schemas.errors import CorpusError
from transforms import metrics, stopping
from transforms.checkpoint import write_table
from transforms.read import Shard, read_shard

BUCKETS = 16

_DIGEST_SCHEMA = pa.schema(
    [
        pa.field("digest", pa.binary(16), nullable=False),  # of the item's id
        pa.field("shard", pa.int64(), nullable=False),  # index in corpus order
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # of the batch
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("where", pa.string(), nullable=False),  # uri and place
    ]
)
DUPLICATE_SCHEMA = pa.schema([*_DIGEST_SCHEMA, pa.field("kept_where", pa.string(), nullable=False)])
"""One row for each item that stands behind another of the same id, with where the kept one stands."""


@dataclass(eq=False)
class FindDuplicates(beam.PTransform):  # type: ignore[misc]
    """PCollection of `Shard` -> one Parquet file of `DUPLICATE_SCHEMA` at `uri`."""

    config: Config
    uri: str

    def expand(self, shards: beam.PCollection) -> beam.PCollection:
        return (
            shards
            | "Digest" >> beam.ParDo(_Digest(self.config))
            | "ByBucket" >> beam.GroupByKey()
            | "Compare" >> beam.ParDo(_Compare(self.config.corpus.on_duplicate))
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(_Write(self.uri))
        )


class _Digest(beam.DoFn):  # type: ignore[misc]
    def __init__(self, config: Config) -> None:
        self._config = config

    def process(self, shard: Shard) -> Iterator[tuple[int, pa.Table]]:
        for batch in read_shard(shard, self._config.corpus, batch_rows=self._config.batch_rows):
            stopping.check()
            metrics.count("items_surveyed", batch.items_read)
            ids = batch.items.column("item_id").to_pylist()
            digests = [hashlib.sha256(item_id.encode()).digest()[:16] for item_id in ids]
            table = pa.table(
                {
                    "digest": pa.array(digests, pa.binary(16)),
                    "shard": pa.array(np.full(len(ids), shard.index)),
                    "ordinal": pa.array(np.full(len(ids), batch.key.ordinal)),
                    "row": pa.array(np.arange(len(ids))),
                    "item_id": batch.items.column("item_id"),
                    "where": pc.binary_join_element_wise(batch.items.column("uri"), batch.items.column("place"), " "),
                },
                schema=_DIGEST_SCHEMA,
            )
            buckets = np.array([digest[0] % BUCKETS for digest in digests], np.int64)
            for bucket in np.unique(buckets):
                # Taken, not sliced: a slice would carry the buffers of the whole table through the shuffle.
                yield int(bucket), table.take(pa.array(np.flatnonzero(buckets == bucket)))
        yield 0, _DIGEST_SCHEMA.empty_table()  # so that a file comes out of an empty corpus too


class _Compare(beam.DoFn):  # type: ignore[misc]
    def __init__(self, on_duplicate: str) -> None:
        self._keep_last = on_duplicate == "last"

    def process(self, group: tuple[int, Iterable[pa.Table]]) -> Iterator[tuple[int, pa.Table]]:
        yield 0, duplicates_of(pa.concat_tables(group[1]), keep_last=self._keep_last)


class _Write(beam.DoFn):  # type: ignore[misc]
    def __init__(self, uri: str) -> None:
        self._uri = uri

    def process(self, group: tuple[int, Iterable[pa.Table]]) -> Iterator[str]:
        found = pa.concat_tables(group[1])
        write_table(self._uri, found.sort_by([(name, "ascending") for name in ("shard", "ordinal", "row")]))
        yield self._uri


def duplicates_of(digests: pa.Table, *, keep_last: bool) -> pa.Table:
    """Items whose id another item has too, but for the one that is kept.

    Args:
        digests: item digests of one bucket, in any order.
        keep_last: keeps the last in corpus order instead of the first.

    Returns:
        Table of `DUPLICATE_SCHEMA`.
    """
    order = "descending" if keep_last else "ascending"
    table = digests.sort_by(
        [("digest", "ascending"), ("shard", order), ("ordinal", order), ("row", order)]
    ).combine_chunks()
    keys = table.column("digest").to_numpy(zero_copy_only=False)
    if len(keys) < 2:
        return DUPLICATE_SCHEMA.empty_table()
    repeats = np.concatenate([[False], keys[1:] == keys[:-1]])
    kept = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(keys))))
    rows = np.flatnonzero(repeats)
    found = table.take(pa.array(rows))
    return found.append_column("kept_where", table.column("where").take(pa.array(kept[rows]))).cast(DUPLICATE_SCHEMA)


def refuse_duplicates(duplicates: pa.Table) -> None:
    """Raises CorpusError where there are any, with the first ones and where they stand."""
    if duplicates.num_rows == 0:
        return
    named = [
        f"{row['item_id']!r} at {row['kept_where'].strip()} and {row['where'].strip()}"
        for row in duplicates.slice(0, 5).to_pylist()
    ]
    more = f", and {duplicates.num_rows - 5} more" if duplicates.num_rows > 5 else ""
    raise CorpusError(
        f"ids that stand twice: {duplicates.num_rows}; {'; '.join(named)}{more}",
        "make ids unique, or choose which counts with corpus.on_duplicate: first (or last)",
    )


def drops_by_shard(duplicates: pa.Table) -> dict[int, dict[tuple[int, int], str]]:
    """For each shard (by index) the items to leave out: (ordinal, row) -> where the kept item stands."""
    drops: dict[int, dict[tuple[int, int], str]] = {}
    columns: Iterable[tuple[Any, ...]] = zip(
        *(duplicates.column(name).to_pylist() for name in ("shard", "ordinal", "row", "kept_where")), strict=True
    )
    for shard, ordinal, row, kept in columns:
        drops.setdefault(shard, {})[ordinal, row] = kept.strip()
    return drops
