"""Items of several modalities to chunks: each by the chunker of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.layout import ITEM_MODALITY, chunk_schema, item_facts, item_schema
from schemas.modality import ROW_MODALITY, Modality
from transforms.chunk.base import Chunked, Chunker


class MixedChunker:
    """Gives the items of each modality to its chunker.

    Args:
        chunkers: of each modality that the corpus has.
        metadata: for each column string, int, float or bool.
    """

    def __init__(self, chunkers: Mapping[Modality, Chunker], metadata: Mapping[str, str]) -> None:
        self._chunkers = chunkers
        facts = item_facts().names
        self._items = {one: list(dict.fromkeys([*item_schema(metadata, one).names, *facts])) for one in chunkers}
        self._schema = chunk_schema(metadata, Modality.MIXED)

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`."""
        modalities = items.column(ITEM_MODALITY)
        made = {
            modality: chunker.chunk(items.filter(pc.equal(modalities, modality)).select(self._items[modality]))
            for modality, chunker in self._chunkers.items()
        }
        chunks = pa.concat_tables([self._widened(one.chunks, modality) for modality, one in made.items()])
        # In the order of the items, whatever their modality.
        places = pc.index_in(chunks.column("item_id"), items.column("item_id").combine_chunks()).to_numpy()
        chunks = chunks.take(pa.array(np.argsort(places, kind="stable")))
        return Chunked(chunks, pa.concat_tables([one.rejects for one in made.values()]))

    def _widened(self, chunks: pa.Table, modality: Modality) -> pa.Table:
        """The chunks of one modality with the columns of all: empty, 0 or null where it has none."""
        rows = chunks.num_rows
        columns = {name: chunks.column(name) for name in chunks.column_names}
        columns[ROW_MODALITY] = pa.array([str(modality)] * rows, pa.string())
        return pa.table(
            [
                columns[field.name].cast(field.type) if field.name in columns else _absent(field, rows)
                for field in self._schema
            ],
            schema=self._schema,
        )


def _absent(field: pa.Field, rows: int) -> pa.Array:
    if field.nullable:
        return pa.nulls(rows, field.type)
    return pa.array(["" if pa.types.is_string(field.type) else 0] * rows, field.type)
