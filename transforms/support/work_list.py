"""Lists of work of any length: workers read a long list from a file, so that the graph of a job stays small.

A runner accepts a graph of some megabytes (Dataflow: 10 MB), and Beam's `Create` puts each of its elements into it.
Here the graph holds a short list as it is, and of a long one only which rows of a file each worker reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa

from transforms.support.storage import filesystem
from transforms.support.storage.stored_table import GROUP_ROWS, StoredTable, write_rows
from transforms.support.tidying import tidied
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.support.work_rows import Work, WorkRows

INLINE_BYTES = 64 << 10
"""Most bytes of a list that a graph holds as it is."""


@contextlib.contextmanager
def listed(work: Sequence[Work], rows: WorkRows[Work], uri: str) -> Iterator[ReadWork]:
    """A list of work as the beginning of a pipeline, for as long as the block lasts.

    Args:
        work: each is one element of the pipeline.
        uri: the file that a long list is written to. It is deleted at the end, unless the job that reads it runs on.

    Raises:
        CheckpointError: if the file can't be written.
    """
    tables = [
        pa.Table.from_pylist([rows.to_row(one) for one in work[start : start + GROUP_ROWS]], schema=rows.schema)
        for start in range(0, len(work), GROUP_ROWS)
    ]
    if sum(table.nbytes for table in tables) <= INLINE_BYTES:
        inline = pa.concat_tables(tables) if tables else rows.schema.empty_table()
        yield ReadWork(rows, len(work), inline=inline)
        return
    write_rows(uri, tables)

    def tidy() -> None:
        filesystem.delete([uri])
        folder, _, _ = uri.rpartition("/")
        filesystem.remove_empty_folders(folder, folder.rpartition("/")[0])

    with tidied(tidy):
        yield ReadWork(rows, len(work), uri=uri)


@dataclass(eq=False)
class ReadWork(beam.PTransform):  # type: ignore[misc]
    """Beginning of a pipeline -> PCollection of the work of a list, spread over the workers.

    Attributes:
        rows: how the work is written.
        count: length of the list.
        uri: the file with it; "" if the graph holds it.
        inline: the list, if the graph holds it.
    """

    rows: WorkRows[Any]
    count: int
    uri: str = ""
    inline: pa.Table | None = None

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        pieces = [(start, min(GROUP_ROWS, self.count - start)) for start in range(0, self.count, GROUP_ROWS)]
        read = begin | "Pieces" >> beam.Create(pieces) | "Read" >> beam.ParDo(_Read(self.rows, self.uri, self.inline))
        # A shuffle of one element gives nothing to other workers, and costs small runs a stage.
        return read if self.count == 1 else read | "Spread" >> beam.Reshuffle()


class _Read(VersionedDoFn):
    def __init__(self, rows: WorkRows[Any], uri: str, inline: pa.Table | None) -> None:
        self._from_row = rows.from_row
        self._uri = uri
        self._inline = inline

    def process(self, piece: tuple[int, int]) -> Iterator[Any]:
        first, count = piece
        if self._inline is not None:
            table = self._inline.slice(first, count)
        else:
            table = StoredTable(self._uri).rows(first, count)
        for row in table.to_pylist():
            yield self._from_row(row)
