"""Items that get one row each, whatever they are: images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from schemas.config import Config
from schemas.identity import content_hash, row_id
from schemas.layout import LOCATOR, chunk_schema, item_facts
from schemas.locator import shown_column
from schemas.modality import Modality
from schemas.rejects import Reject, rejects_table
from schemas.row_columns import amount_fields
from transforms.chunk.base import Chunked


class WholeChunker:
    """Makes one chunk of each media item.

    Args:
        config: of which `corpus.metadata` and `collection.id_max_bytes` count.
        modality: of the items.
    """

    def __init__(self, config: Config, modality: Modality = Modality.IMAGE) -> None:
        self._metadata = config.corpus.column_types
        self._id_max_bytes = config.collection.id_max_bytes
        self._modality = modality
        self._schema = chunk_schema(self._metadata, modality)

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`."""
        ids = [row_id(item_id, 0) for item_id in items.column("item_id").to_pylist()]
        lengths = np.fromiter((len(name.encode()) for name in ids), np.int64, len(ids))
        kept = lengths <= self._id_max_bytes
        rejects = [self._too_long(items, int(row), int(lengths[row])) for row in np.flatnonzero(~kept)]
        items = items.filter(pa.array(kept))
        zeros = np.zeros(items.num_rows)
        columns = {
            "id": pa.array([name for name, fits in zip(ids, kept, strict=True) if fits], pa.string()),
            "item_id": items.column("item_id"),
            "chunk": zeros,
            "uri": shown_column(items.column("@uri"), items.column(LOCATOR)),
            "start": zeros,
            "end": zeros,
            "content_hash": pa.array(map(content_hash, items.column("@content").to_pylist()), pa.string()),
            **{field.name: zeros for field in amount_fields(self._modality)},
            **{name: items.column(name) for name in (*self._metadata, LOCATOR, *item_facts().names)},
        }
        arrays = [
            pa.array(column.astype(field.type.to_pandas_dtype())) if isinstance(column, np.ndarray) else column
            for field, column in ((field, columns[field.name]) for field in self._schema)
        ]
        return Chunked(pa.table(arrays, schema=self._schema), rejects_table(rejects))

    def _too_long(self, items: pa.Table, row: int, length: int) -> Reject:
        item_id, uri, place = (items.column(name)[row].as_py() for name in ("item_id", "@uri", "@place"))
        return id_too_long(item_id, uri, place, length, self._id_max_bytes)


def id_too_long(item_id: str, uri: str, place: str, length: int, most: int) -> Reject:
    """The reject of an item whose row id is longer than the collection's field.

    Args:
        length: of the row id, in UTF-8 bytes.
        most: bytes of the field.
    """
    reason = (
        f"the row id takes {length} bytes, collection.id_max_bytes is {most}: raise it (65535 at most) or shorten the "
        f"id {item_id[:60]!r}…"
    )
    return Reject(item_id, uri, place, "chunk", "IdTooLong", reason)
