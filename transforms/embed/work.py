"""The plan of a diff for each item of a shard, applied to the items as they are read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CorpusError
from schemas.layout import item_facts
from schemas.records import Key, Kind
from transforms.diff.digest import item_digests

BATCH_BYTES = 8 << 20
"""Most bytes of content per gathered batch."""


def with_facts(items: pa.Table, chunking: bytes, paths: Mapping[str, str] | None = None) -> pa.Table:
    """Items as read, with the columns of `schemas.layout.item_facts`: all new, without a source.

    Args:
        paths: name in the corpus of each uri; without it the uri is the name.
    """
    _, digests, contents = item_digests(items, chunking)
    uris = items.column("@uri").combine_chunks().dictionary_encode()
    names = [paths[uri] if paths is not None else uri for uri in uris.dictionary.to_pylist()]
    values = {
        "@path": pa.array(names, pa.string()).take(uris.indices),
        "@digest": digests,
        "@content_digest": contents,
        "@kind": np.full(items.num_rows, Kind.NEW, np.int8),
        "@source": np.full(items.num_rows, -1, np.int32),
        "@source_item": np.full(items.num_rows, -1, np.int32),
    }
    facts = item_facts()
    for name, column in values.items():
        field = facts.field(name)
        items = items.append_column(field, column if isinstance(column, pa.Array) else pa.array(column, field.type))
    return items


class ShardPlan:
    """The work of one shard.

    Args:
        work: table of `transforms.diff.comparison.WORK_SCHEMA`, of this shard, by ordinal and row.
        shard: its name, for messages.
    """

    def __init__(self, work: pa.Table, shard: str) -> None:
        self._work = work.combine_chunks()
        self._ordinals = self._work.column("ordinal").to_numpy()
        self._shard = shard

    def select(self, items: pa.Table, ordinal: int) -> pa.Table:
        """The items of a batch that are not unchanged, with their kind and source.

        Raises:
            CorpusError: if these items differ from those that were compared with the snapshot.
        """
        start, end = np.searchsorted(self._ordinals, [ordinal, ordinal + 1])
        work = self._work.slice(start, end - start)
        if work.column("digest").to_pylist() != items.column("@digest").to_pylist():
            raise CorpusError(
                f"the corpus changed while it was read: shard {self._shard}, batch {ordinal}",
                "run the same command again once nothing writes to it; nothing was lost",
            )
        for name in ("kind", "source", "source_item"):
            at = items.schema.get_field_index(f"@{name}")
            items = items.set_column(at, items.schema.field(at), work.column(name))
        return items.filter(pc.not_equal(items.column("@kind"), pa.scalar(int(Kind.UNCHANGED), pa.int8())))


class Gathered:
    """Items of a shard to embed, gathered over its batches, so that their parts don't become small.

    Args:
        shard: its name.
        batch_rows: most items of a batch.
    """

    def __init__(self, shard: str, batch_rows: int) -> None:
        self._shard = shard
        self._batch_rows = batch_rows
        self._tables: list[pa.Table] = []
        self._rows = self._bytes = self._ordinal = 0

    def add(self, items: pa.Table) -> Iterator[tuple[Key, pa.Table]]:
        """Adds items; yields the batches that are full."""
        self._tables.append(items)
        self._rows += items.num_rows
        self._bytes += pc.sum(pc.binary_length(items.column("@content"))).as_py() or 0
        while self._rows >= self._batch_rows or self._bytes >= BATCH_BYTES:
            yield self._take()

    def rest(self) -> Iterator[tuple[Key, pa.Table]]:
        """The last batch, if there is anything in it."""
        if self._rows:
            yield self._take()

    def _take(self) -> tuple[Key, pa.Table]:
        table = pa.concat_tables(self._tables)
        batch, rest = table.slice(0, self._batch_rows), table.slice(self._batch_rows)
        key = Key(self._shard, self._ordinal)
        self._ordinal += 1
        self._tables, self._rows = [rest] if rest.num_rows else [], rest.num_rows
        self._bytes = (pc.sum(pc.binary_length(rest.column("@content"))).as_py() or 0) if rest.num_rows else 0
        return key, batch.combine_chunks()
