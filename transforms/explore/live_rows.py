"""The live rows of a snapshot: streamed, or a seeded sample of them with their vectors as a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import CheckpointError, ConfigurationError
from schemas.layout import VectorKind
from transforms.checkpoint import Checkpoint, Snapshot
from transforms.support.vectors import matrix_of, unit_vectors

Floats = NDArray[np.float32]

MOST_ROWS = 200_000
"""Most rows that are held in memory at a time: a corpus with more is sampled."""
ROW_COLUMNS = ("id", "item_id", "chunk", "modality", "text", "uri", "start", "end")
"""The columns that say which row it is, where the layout has them."""


@dataclass(frozen=True)
class Sample:
    """Some rows with their vectors, in the order of the snapshot.

    Attributes:
        rows: the columns that were wanted.
        vectors: float32[n, dimensions].
        total: rows that they were drawn from.
        seed: by which the rows were drawn.
    """

    rows: pa.Table
    vectors: Floats
    total: int
    seed: int

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @property
    def is_whole(self) -> bool:
        """Whether it has all rows that it was drawn from."""
        return len(self) == self.total

    @property
    def normalised(self) -> Floats:
        """The vectors at length 1, float32[n, dimensions]; one without a length stays 0."""
        return unit_vectors(self.vectors)

    def taken(self, positions: Sequence[int] | NDArray[np.int64]) -> Sample:
        """The sample's rows at some positions."""
        at = np.asarray(positions, np.int64)
        return Sample(self.rows.take(pa.array(at)), self.vectors[at], self.total, self.seed)


@dataclass(frozen=True)
class LiveRows:
    """The live rows of a snapshot of a checkpoint."""

    checkpoint: Checkpoint
    snapshot: Snapshot

    def __len__(self) -> int:
        return self.snapshot.total("rows")

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the rows.

        Raises:
            CheckpointError: if the snapshot has no row, or a part is missing or damaged.
        """
        if not len(self):
            raise CheckpointError(
                f"the snapshot {self.snapshot.name} has no row", "run vecbeam sync once the corpus has items"
            )
        return self.checkpoint.part_schema(self.snapshot.part_names[0])

    @property
    def row_columns(self) -> list[str]:
        """Names of the columns that say which row it is."""
        return [name for name in ROW_COLUMNS if name in self.schema.names]

    def check_columns(self, names: Sequence[str], key: str) -> None:
        """Raises unless the rows have some columns.

        Args:
            key: the option or key of the configuration that names them.

        Raises:
            ConfigurationError: with the columns that there are.
        """
        vectors = {name for name, _ in self._vectors()}
        known = [name for name in self.schema.names if name not in vectors]
        for name in names:
            if name not in known:
                raise ConfigurationError(
                    f"{key}: rows have no column {name!r}; they have {', '.join(known)}",
                    "name one of these, or add it under corpus.metadata and run vecbeam reindex",
                )

    def vector_named(self, name: str = "") -> str:
        """The dense vector of a name; the first one for "".

        Raises:
            ConfigurationError: if there is none of that name, or it is not dense.
        """
        dense = [one for one, kind in self._vectors() if kind is VectorKind.DENSE]
        if name in dense or (not name and dense):
            return name or dense[0]
        if not dense:
            raise ConfigurationError(
                "the rows have no dense vector: theirs are sparse, or one for each token",
                "add a dense encoder to the configuration's encoders, and run vecbeam reindex",
            )
        raise ConfigurationError(
            f"--vector: {name!r} is not a dense vector of the checkpoint; the dense vectors are: {', '.join(dense)}",
            f"name one of these: --vector {dense[0]}",
        )

    @property
    def has_dense(self) -> bool:
        """Whether the rows have a dense vector."""
        return any(kind is VectorKind.DENSE for _, kind in self._vectors())

    def _vectors(self) -> Iterator[tuple[str, VectorKind]]:
        for field in self.schema:
            for kind in VectorKind:
                if field.type == kind.arrow_type:
                    yield field.name, kind

    def tables(self, columns: Sequence[str], rows: int = 65_536) -> Iterator[pa.Table]:
        """Some columns of all rows, at most `rows` at a time, part by part.

        Raises:
            CheckpointError: if a part is missing or damaged.
        """
        for part in self.snapshot.live_parts:
            table = self.checkpoint.read_live(part, list(columns))
            for start in range(0, table.num_rows, rows):
                yield table.slice(start, rows)

    def vectors(self, name: str) -> Iterator[tuple[pa.Array, Floats]]:
        """Ids and vectors float32[n, dimensions] of all rows, part by part."""
        for table in self.tables(["id", name]):
            yield table.column("id").combine_chunks(), matrix_of(table.column(name).combine_chunks())

    def sample(
        self,
        vector: str,
        columns: Sequence[str] = (),
        most: int = MOST_ROWS,
        seed: int = 0,
        among: NDArray[np.int64] | None = None,
    ) -> Sample:
        """All rows, or `most` of them, drawn by a seed, in the order of the snapshot.

        Args:
            vector: the name of a dense vector; "" for a sample without vectors, float32[n, 0].
            columns: in addition to `row_columns`.
            among: positions of rows in the snapshot, ascending, to draw from; all, if None.

        Raises:
            CheckpointError: if the snapshot has no row, a part is missing or damaged, or a vector is not finite.
        """
        wanted = list(dict.fromkeys([*self.row_columns, *columns]))
        chosen = np.arange(len(self)) if among is None else among
        total = len(chosen)
        if total > most:
            chosen = chosen[np.sort(np.random.default_rng(seed).choice(total, most, replace=False))]
        sizes = np.asarray(self.snapshot.parts.column("rows").to_pylist(), np.int64)
        ends = np.cumsum(sizes)
        tables, matrices = [], []
        for position in np.unique(np.searchsorted(ends, chosen, side="right")).tolist():
            start, end = int(ends[position] - sizes[position]), int(ends[position])
            here = chosen[(chosen >= start) & (chosen < end)] - start
            part = self.checkpoint.read_live(
                self.snapshot.live_part(position), [*wanted, *([vector] if vector else [])]
            )
            part = part if len(here) == part.num_rows else part.take(pa.array(here))
            tables.append(part.select(wanted))
            none = np.zeros((part.num_rows, 0), np.float32)
            matrices.append(matrix_of(part.column(vector).combine_chunks()) if vector else none)
        if not tables:
            none = self.schema.empty_table().select(wanted)
            return Sample(none, np.zeros((0, 0), np.float32), total, seed)
        rows, matrix = pa.concat_tables(tables, promote_options="permissive"), np.concatenate(matrices)
        check_finite(rows, matrix)
        return Sample(rows, matrix, total, seed)


def check_finite(rows: pa.Table, matrix: Floats) -> None:
    """Raises CheckpointError, naming the first rows, where a vector has NaN or infinity: a part was damaged."""
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        some = pc.take(rows.column("id"), pa.array(bad[:3])).to_pylist()
        raise CheckpointError(
            f"{len(bad)} vectors of the checkpoint have NaN or infinity, the first: {', '.join(some)}",
            "run vecbeam reindex --full-refresh, which embeds all items again",
        )
