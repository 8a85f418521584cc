"""The protocol of a chunker."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import pyarrow as pa


class Chunked(NamedTuple):
    """The chunks and rejects of items.

    Attributes:
        chunks: table of `schemas.layout.chunk_schema`, in the order of the items.
        rejects: table of `schemas.records.REJECT_SCHEMA`: items of which no chunk was made.
    """

    chunks: pa.Table
    rejects: pa.Table


class Chunker(Protocol):
    """Cuts items into chunks that an encoder accepts; the same items give the same chunks."""

    def chunk(self, items: pa.Table) -> Chunked:
        """Chunks of items.

        Args:
            items: table of `schemas.layout.item_schema`, with the columns of `schemas.layout.item_facts`.
        """
        ...
