"""Tables of chunks in the store, between workers that read and chunk and workers that have an accelerator.

Only the name of a table is shuffled, and the name is that of the part that will be made of it: two workers that write
a table, and the retry of one, write the same file.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from schemas.layout import SOURCE_ROW, Layout
from transforms.checkpoint import read_table, write_table
from transforms.support.storage import filesystem


@dataclass(frozen=True)
class ChunkTables:
    """The folder of the chunk tables of a run.

    A table is valid for its run alone: `@source` of a chunk points into the snapshot that the run began with.

    Args:
        folder: where they are.
        layout: whose chunks they hold.
    """

    folder: str
    layout: Layout

    def write(self, name: str, chunks: pa.Table) -> None:
        """Writes a table, unless it exists.

        Args:
            name: of the part.
            chunks: table of `Layout.chunks` with the column `@source_row`.

        Raises:
            CheckpointError: if it can't be written.
        """
        uri = self._uri(name)
        if not filesystem.exists(uri):
            write_table(uri, chunks)

    def read(self, name: str) -> pa.Table:
        """A table as it was written, with the name of its part in the schema's metadata.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        schema = self.layout.chunks.append(pa.field(SOURCE_ROW, pa.int32(), nullable=False))
        table = read_table(self._uri(name)).select(schema.names).cast(schema).combine_chunks()
        return table.replace_schema_metadata({b"part": name.encode()})

    def _uri(self, name: str) -> str:
        return filesystem.join(self.folder, name)
