"""The exact answers to the queries of a recall, on workers: each ranks the rows of some parts; the best are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.milvus import CollectionSpec, VectorColumn
from transforms import milvus
from transforms.checkpoint import read_table, write_table
from transforms.diff.comparison import pack, unpack
from transforms.milvus.exact_answers import ExactAnswers
from transforms.milvus.recall import Asked, ask
from transforms.support import metrics
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.verify.part_groups import OpenRows, PartGroup, SnapshotRows, WithRows

GROUPS_OF_A_PIECE = 256
"""How many groups' answers are merged into one file."""


@dataclass(frozen=True)
class QueriesIn:
    """Queries and hits of one vector in a folder of a run; small enough to travel.

    Attributes:
        folder: of the findings.
        column: the vector.
        rows: of the collection.
    """

    folder: str
    column: VectorColumn
    rows: int

    @property
    def _folder(self) -> str:
        return filesystem.join(self.folder, "recall", self.column.name)

    @property
    def _uri(self) -> str:
        return filesystem.join(self._folder, "queries.parquet")

    @property
    def exists(self) -> bool:
        """Whether there are queries: a corpus without a row has none."""
        return filesystem.exists(self._uri)

    def piece_uri(self, piece: int) -> str:
        """A file with answers, a table of `transforms.milvus.exact_answers.EXACT_SCHEMA`."""
        return filesystem.join(self._folder, f"exact/{piece}.parquet")

    def ask(self, connection: milvus.Milvus, spec: CollectionSpec, rows: OpenRows, sample: int) -> None:
        """Searches some rows of a collection through its index, and writes queries and hits.

        Args:
            rows: all that it holds.
            sample: how many serve as queries.

        Raises:
            CollectionError: if the search fails.
        """
        asked = ask(connection, spec, partial(_vectors_at, rows, self.column), rows.count, sample, column=self.column)
        if asked is not None:
            write_table(self._uri, asked.as_table())

    def read(self) -> Asked:
        return Asked.of_table(self.column, read_table(self._uri), self.rows)

    def no_answers(self, used: ExactAnswers | None = None) -> ExactAnswers:
        """A state for the answers, of no row yet: one that was used, or another one."""
        if used is None:
            return self.read().exact()
        used.clear()
        return used

    def exact(self) -> ExactAnswers:
        """The answers over all rows, from the files."""
        exact = self.no_answers()
        for file in filesystem.list_files(self._folder, "exact/*.parquet"):
            exact.merge(read_table(file.uri))
        return exact


def _vectors_at(rows: OpenRows, column: VectorColumn, places: NDArray[np.int64]) -> pa.Table:
    return rows.at(places, ["id", column.name])


@dataclass(eq=False)
class NearestParts(beam.PTransform):  # type: ignore[misc]
    """PCollection of `PartGroup` -> PCollection of the numbers of the files with exact answers.

    The queries are read with the first group: the job may have written them itself.

    Attributes:
        rows: all rows of the collection.
        queries: where they are.
        groups: how many groups there are.
    """

    rows: SnapshotRows
    queries: QueriesIn
    groups: int

    def expand(self, groups: beam.PCollection) -> beam.PCollection:
        pieces = 1 + self.groups // GROUPS_OF_A_PIECE
        return (
            groups
            | "Rank" >> beam.ParDo(_Rank(self.rows, self.queries, pieces))
            | "ByPiece" >> beam.GroupByKey()
            | "Merge" >> beam.ParDo(_Merge(self.queries))
        )


class _Rank(WithRows):
    def __init__(self, rows: SnapshotRows, queries: QueriesIn, pieces: int) -> None:
        super().__init__(rows)
        self._queries = queries
        self._pieces = pieces
        self._exact: ExactAnswers | None = None

    def process(self, group: PartGroup) -> Iterator[tuple[int, bytes]]:
        with metrics.timed("verify"):
            self._exact = self._queries.no_answers(self._exact)
            for _, rows in self._rows.of(group, ["id", self._queries.column.name]):
                self._exact.add(rows)
            packed = pack(self._exact.as_table())
        yield group[0] % self._pieces, packed


class _Merge(VersionedDoFn):
    def __init__(self, queries: QueriesIn) -> None:
        self._queries = queries
        self._exact: ExactAnswers | None = None

    def process(self, piece: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        self._exact = self._queries.no_answers(self._exact)
        for packed in piece[1]:
            self._exact.merge(unpack([packed]))
        write_table(self._queries.piece_uri(piece[0]), self._exact.as_table())
        yield piece[0]
