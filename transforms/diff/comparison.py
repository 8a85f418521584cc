"""Two sides of digests, compared within a bucket: pure functions over Arrow tables, vectorised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.records import Kind
from transforms.diff.digest import Side, halves

Integers = np.ndarray[Any, np.dtype[np.int64]]

BUCKETS = 16
"""So many workers compare at the same time, unless there are few rows."""
ROWS_WORTH_A_BUCKET = 16_000
ROWS_OF_A_BUCKET = 250_000

WORK_SCHEMA = pa.schema(
    [
        # One row per item of a file that is read again.
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("digest", pa.binary(16), nullable=False),
        pa.field("size", pa.int32(), nullable=False),  # bytes of its content
        pa.field("kind", pa.int8(), nullable=False),
        pa.field("source", pa.int32(), nullable=False),  # position of a part in the snapshot, -1 for none
        pa.field("source_item", pa.int32(), nullable=False),
        pa.field("same_content", pa.bool_(), nullable=False),  # as the source's, whose vectors it can have
    ]
)
DEAD_SCHEMA = pa.schema(
    [
        # One row per item of the snapshot whose rows are no longer in the corpus.
        pa.field("part", pa.int32(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("file", pa.int32(), nullable=False),  # position in the listing; -1 where it is gone
        pa.field("deleted", pa.bool_(), nullable=False),  # its id no longer exists
        pa.field("moved", pa.bool_(), nullable=False),  # ... and its content does, under another id
    ]
)
DUPLICATE_SCHEMA = pa.schema(
    [
        # One row per item whose id another item has too, with the place of the kept one.
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("kept_file", pa.int32(), nullable=False),
        pa.field("kept_place", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a bucket.

    Attributes:
        work: table of `WORK_SCHEMA`, without the items in `new`.
        dead: table of `DEAD_SCHEMA`, without the items in `old`.
        duplicates: table of `DUPLICATE_SCHEMA`.
        conflicts: positions of unchanged files whose items have ids that changed files have too.
        new: digests of items whose id is new.
        old: digests of items whose id is gone.
    """

    work: pa.Table
    dead: pa.Table
    duplicates: pa.Table
    conflicts: list[int]
    new: pa.Table
    old: pa.Table


def compare(digests: pa.Table, *, keep_last: bool) -> Comparison:
    """Compares all digests of one bucket of item ids.

    Args:
        digests: table of `DIGEST_SCHEMA`, in any order.
        keep_last: keeps the last of several new items with one id, in corpus order, and not the first.
    """
    if digests.num_rows == 0:
        work, dead, duplicates = (schema.empty_table() for schema in (WORK_SCHEMA, DEAD_SCHEMA, DUPLICATE_SCHEMA))
        return Comparison(work, dead, duplicates, [], digests, digests)
    table = digests.combine_chunks()
    keys = halves(table.column("key"))
    columns = {name: table.column(name).to_numpy() for name in ("side", "file", "shard", "ordinal", "row")}
    order = np.lexsort((columns["row"], columns["ordinal"], columns["shard"], columns["side"], keys[:, 1], keys[:, 0]))
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))
    is_new = columns["side"][order] == Side.NEW
    count_new = np.add.reduceat(is_new.astype(np.int64), starts)
    sizes = np.diff(np.append(starts, len(order)))
    winners = np.where(count_new > 0, starts + (count_new - 1 if keep_last else 0), -1)
    # Within the snapshot ids are unique, so at most one old item follows the new ones.
    olds = np.where(sizes > count_new, starts + count_new, -1)
    side_of_old = np.where(olds >= 0, columns["side"][order[olds]], -1)

    both = (winners >= 0) & (olds >= 0)
    conflicts = np.unique(columns["file"][order[olds[both & (side_of_old == Side.KEPT)]]])
    met = both & (side_of_old == Side.CANDIDATE)
    new, old = order[winners[met]], order[olds[met]]
    kinds = _kinds(halves(table.column("digest")), columns["file"], new, old)
    replaced = kinds != Kind.UNCHANGED
    contents = halves(table.column("content"))
    same_content = (contents[new] == contents[old]).all(axis=1)
    return Comparison(
        work=_work(table, new, kinds, columns["shard"][old], columns["ordinal"][old], same_content),
        dead=_dead(table, old[replaced], deleted=False, moved=np.zeros(int(replaced.sum()), bool)),
        duplicates=_duplicates(table, order, is_new, winners, sizes),
        conflicts=[int(file) for file in conflicts],
        new=table.take(pa.array(order[winners[(winners >= 0) & (olds < 0)]])),
        old=table.take(pa.array(order[olds[(winners < 0) & (side_of_old == Side.CANDIDATE)]])),
    )


def _kinds(
    digests: np.ndarray[Any, np.dtype[np.uint64]], files: Integers, new: Integers, old: Integers
) -> np.ndarray[Any, np.dtype[np.int8]]:
    same = (digests[new] == digests[old]).all(axis=1)
    kinds = np.where(same, np.where(files[new] == files[old], Kind.UNCHANGED, Kind.RELOCATED), Kind.CHANGED)
    return kinds.astype(np.int8)


def _duplicates(table: pa.Table, order: Integers, is_new: Any, winners: Integers, sizes: Integers) -> pa.Table:
    winner_of = np.repeat(winners, sizes)
    places = np.arange(len(order))
    losers = places[is_new & (places != winner_of)]
    lost = table.take(pa.array(order[losers]))
    kept = table.take(pa.array(order[winner_of[losers]]))
    return pa.table(
        {
            **{name: lost.column(name) for name in ("shard", "ordinal", "row")},
            "kept_file": kept.column("file"),
            "kept_place": kept.column("place"),
        },
        schema=DUPLICATE_SCHEMA,
    )


def pair_moves(digests: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Finds for items with a new id those whose id is gone and whose content they have.

    Args:
        digests: table of `DIGEST_SCHEMA` of one bucket of contents; sides NEW and CANDIDATE.

    Returns:
        work (`WORK_SCHEMA`) for each new item and dead (`DEAD_SCHEMA`) for each old one.
    """
    if digests.num_rows == 0:
        return WORK_SCHEMA.empty_table(), DEAD_SCHEMA.empty_table()
    table = digests.combine_chunks()
    contents = halves(table.column("content"))
    columns = {name: table.column(name).to_numpy() for name in ("side", "shard", "ordinal", "row")}
    order = np.lexsort(
        (columns["row"], columns["ordinal"], columns["shard"], columns["side"], contents[:, 1], contents[:, 0])
    )
    contents = contents[order]
    starts = np.flatnonzero(np.concatenate([[True], (contents[1:] != contents[:-1]).any(axis=1)]))
    is_new = columns["side"][order] == Side.NEW
    sizes = np.diff(np.append(starts, len(order)))
    count_new = np.repeat(np.add.reduceat(is_new.astype(np.int64), starts), sizes)
    start = np.repeat(starts, sizes)
    places = np.arange(len(order))
    rank = places - start - np.where(is_new, 0, count_new)
    count_old = np.repeat(sizes, sizes) - count_new
    # One for one while there are enough; a further copy takes the vectors of the last, and still counts as new.
    new = places[is_new]
    partner = start[new] + count_new[new] + np.minimum(rank[new], count_old[new] - 1)
    has = count_old[new] > 0
    partner = order[np.where(has, partner, 0)]
    kinds = np.where(has & (rank[new] < count_old[new]), Kind.MOVED, Kind.NEW).astype(np.int8)
    source = np.where(has, columns["shard"][partner], -1)
    source_item = np.where(has, columns["ordinal"][partner], -1)
    old = places[~is_new]
    moved = rank[old] < count_new[old]
    work = _work(table, order[new], kinds, source, source_item, has)
    return work, _dead(table, order[old], deleted=True, moved=moved)


def _work(
    table: pa.Table, rows: Integers, kinds: Any, source: Integers, source_item: Integers, same_content: Any
) -> pa.Table:
    taken = table.select(["shard", "ordinal", "row", "digest", "size"]).take(pa.array(rows))
    return pa.table(
        {
            **{name: taken.column(name) for name in taken.column_names},
            "kind": kinds,
            "source": source.astype(np.int32),
            "source_item": source_item.astype(np.int32),
            "same_content": same_content,
        },
        schema=WORK_SCHEMA,
    )


def _dead(table: pa.Table, rows: Integers, *, deleted: bool, moved: Any) -> pa.Table:
    taken = table.select(["shard", "ordinal", "file"]).take(pa.array(rows))
    return pa.table(
        {
            "part": taken.column("shard"),
            "item": taken.column("ordinal"),
            "file": taken.column("file"),
            "deleted": np.full(len(rows), deleted),
            "moved": moved,
        },
        schema=DEAD_SCHEMA,
    )


def buckets_for(rows: int) -> int:
    """How many buckets some rows are shuffled into: a worker compares one in its memory, and each one costs time.

    >>> [buckets_for(rows) for rows in (10, 100_000, 1_000_000, 10_000_000)]
    [1, 7, 16, 40]
    """
    return max(min(BUCKETS, 1 + rows // ROWS_WORTH_A_BUCKET), rows // ROWS_OF_A_BUCKET)


def buckets_of(column: pa.ChunkedArray, buckets: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The bucket of each digest, int64[n]."""
    return (halves(column)[:, 0] % np.uint64(buckets)).astype(np.int64)


def pack(table: pa.Table) -> bytes:
    """A table for a shuffle: Arrow's stream format, compressed; half the size of a pickle."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def unpack(tables: Iterable[bytes]) -> pa.Table:
    """One table of the tables that `pack` made."""
    return pa.concat_tables([pa.ipc.open_stream(data).read_all() for data in tables])


def split(table: pa.Table, groups: np.ndarray[Any, np.dtype[np.int64]]) -> list[tuple[int, pa.Table]]:
    """The rows of a table by group, one table per group.

    Rows are taken, not sliced: a slice would carry the buffers of the whole table through a shuffle.
    """
    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    return [(int(groups[rows[0]]), table.take(pa.array(rows))) for rows in np.split(order, borders) if len(rows)]
