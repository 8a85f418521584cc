"""Existing vectors: an item that changed in part, or moved, keeps those of the chunks that it still has."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CheckpointError
from schemas.layout import SOURCE_ROW, Layout
from schemas.records import ITEM_SCHEMA
from transforms.checkpoint import Checkpoint
from transforms.checkpoint.embedded import EmbeddedBatch, EmbeddedTable
from transforms.checkpoint.items import first_rows
from transforms.diff.digest import item_keys
from transforms.support.amounts import amounts_of

log = logging.getLogger("vecbeam")

Integers = np.ndarray[Any, np.dtype[np.int64]]


def with_source_rows(chunks: pa.Table, checkpoint: Checkpoint, part_names: list[str]) -> pa.Table:
    """Finds for each chunk the row of its item's old part that has its text.

    A part that can't be read is not a source: its chunks are embedded again.

    Args:
        chunks: table of `schemas.layout.chunk_schema`.
        part_names: of the snapshot that the column `@source` points into.

    Returns:
        The table with the column `@source_row`.
    """
    found = np.full(chunks.num_rows, -1, np.int32)
    sources = chunks.column("@source").to_numpy()
    for source in np.unique(sources[sources >= 0]):
        places = np.flatnonzero(sources == source)
        name = part_names[int(source)]
        try:
            items = checkpoint.read_items(name)
            hashes = checkpoint.read_part(name, ["content_hash"]).column("content_hash")
        except CheckpointError as error:
            log.warning("%s; its chunks are embedded again", error.message)
            continue
        found[places] = _match(chunks.take(pa.array(places)), items, hashes.to_pylist())
    return chunks.append_column(pa.field(SOURCE_ROW, pa.int32(), nullable=False), pa.array(found))


def _match(chunks: pa.Table, items: pa.Table, hashes: list[str]) -> list[int]:
    starts = first_rows(items).tolist()
    counts = items.column("rows").to_pylist()
    rows: dict[int, dict[str, int]] = {}
    found = []
    for item, wanted in zip(
        chunks.column("@source_item").to_pylist(), chunks.column("content_hash").to_pylist(), strict=True
    ):
        if item not in rows:
            start = starts[item]
            rows[item] = {hashes[row]: row for row in range(start, start + counts[item])}
        found.append(rows[item].get(wanted, -1))
    return found


def assemble(table: EmbeddedTable, checkpoint: Checkpoint, part_names: list[str], layout: Layout) -> EmbeddedBatch:
    """Combines embedded and existing vectors, in the order of the chunks.

    An item with a rejected chunk is left out whole.
    """
    chunks, batch = table
    source_rows = chunks.column(SOURCE_ROW).to_numpy()
    if (source_rows < 0).all():
        return batch
    gone = pa.array(sorted(set(batch.rejects.column("id").to_pylist())), pa.string())
    kept = pc.invert(pc.is_in(chunks.column("item_id"), gone)).to_numpy(zero_copy_only=False)
    chunks, source_rows = chunks.filter(pa.array(kept)), source_rows[kept]
    sources = chunks.column("@source").to_numpy()
    made = list(layout.made)
    pieces, places = [batch.rows.select(made)], [np.flatnonzero(source_rows < 0)]
    runtime = batch.runtime
    for source in np.unique(sources[source_rows >= 0]):
        here = np.flatnonzero((sources == source) & (source_rows >= 0))
        name = part_names[int(source)]
        pieces.append(_with_columns(checkpoint.read_part(name, made), layout).take(pa.array(source_rows[here])))
        places.append(here)
        runtime = runtime or checkpoint.runtime(name)
    order = np.argsort(np.concatenate(places), kind="stable")
    filled = pa.concat_tables(pieces).take(pa.array(order)).combine_chunks()
    columns = {name: (filled if name in made else chunks).column(name) for name in layout.rows.names}
    return EmbeddedBatch(pa.table(columns, schema=layout.rows), batch.rejects, batch.tokens_padded, runtime)


def _with_columns(rows: pa.Table, layout: Layout) -> pa.Table:
    """Rows with all columns that encoders make: the corpus may have got items of another modality since."""
    schema = pa.schema([layout.rows.field(name) for name in layout.made])
    nothing = np.zeros(rows.num_rows, np.int64)
    columns = [rows.column(name) if name in rows.column_names else nothing for name in layout.made]
    return pa.table([pa.array(one) if one is nothing else one for one in columns], names=schema.names).cast(schema)


def items_beside(rows: pa.Table, chunks: pa.Table) -> pa.Table:
    """The items of a part's rows.

    Args:
        rows: of a part; those of an item follow each other.
        chunks: what they were made from.

    Returns:
        Table of `schemas.records.ITEM_SCHEMA`.
    """
    ids = rows.column("item_id").to_pylist()
    firsts = [at for at, item_id in enumerate(ids) if at == 0 or ids[at - 1] != item_id]
    names = [ids[at] for at in firsts]
    columns = [chunks.column(name).to_pylist() for name in ("item_id", "@digest", "@content_digest", "@path")]
    facts = {item_id: fact for item_id, *fact in zip(*columns, strict=True)}
    borders = np.array([*firsts, len(ids)], np.int64)
    tokens, dropped = (_sums(amount, borders) for amount in amounts_of(rows))
    return pa.table(
        {
            "key": item_keys(names),
            "digest": [facts[name][0] for name in names],
            "content": [facts[name][1] for name in names],
            "path": [facts[name][2] for name in names],
            "rows": np.diff(borders).astype(np.int32),
            "tokens": tokens,
            "tokens_dropped": dropped,
        },
        schema=ITEM_SCHEMA,
    )


def _sums(column: Integers, borders: Integers) -> Integers:
    sums = np.concatenate([[0], np.cumsum(column)])
    found: Integers = sums[borders[1:]] - sums[borders[:-1]]
    return found
