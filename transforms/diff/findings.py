"""The files that a diff writes into the folder of a run, and how they are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import REJECT_SCHEMA, Kind
from transforms.checkpoint import Checkpoint, Snapshot, read_table
from transforms.diff.comparison import DUPLICATE_SCHEMA
from transforms.support.storage import filesystem

_ORDER = ("shard", "ordinal", "row", "part", "file", "error", "digest")

LISTING_SCHEMA = pa.schema(
    [
        # The files of the corpus by name, to be looked up.
        pa.field("name", pa.large_string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),  # in corpus order
        pa.field("kept", pa.bool_(), nullable=False),  # unchanged since the snapshot
    ]
)
COUNTS_SCHEMA = pa.schema(
    [
        *(pa.field(kind.name.lower(), pa.int64(), nullable=False) for kind in Kind),
        # Bytes of content of the items that are new or changed.
        pa.field("bytes", pa.int64(), nullable=False),
        # Those of them whose content is not that of their source, and its bytes.
        pa.field("other_content", pa.int64(), nullable=False),
        pa.field("other_bytes", pa.int64(), nullable=False),
    ]
)
SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("content", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),  # of media; see `schemas.layout.LOCATOR`
        pa.field("modality", pa.string(), nullable=False),  # of an item of a corpus of several, else ""
        pa.field("digest", pa.binary(16), nullable=False),
    ]
)
DRAWN_SCHEMA = pa.schema(
    [
        # Items of the sample that are new or changed.
        pa.field("digest", pa.binary(16), nullable=False),
        pa.field("same_content", pa.bool_(), nullable=False),  # as `transforms.diff.comparison.WORK_SCHEMA` has it
    ]
)
DEAD_PARTS_SCHEMA = pa.schema(
    [
        pa.field("part", pa.int32(), nullable=False),
        pa.field("dead", pa.list_(pa.int32()), nullable=False),  # rows
        *(pa.field(name, pa.int64(), nullable=False) for name in ("items", "tokens", "tokens_dropped")),
        pa.field("deleted", pa.int64(), nullable=False),  # items whose id and content are gone
        # Items of files that could not be read to their end: they stay, by position in the listing.
        pa.field("spared", pa.list_(pa.int32()), nullable=False),
    ]
)
ERRORS_SCHEMA = pa.schema(
    [
        # Rejects of one shard, by error.
        pa.field("error", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
SURVEYED_SCHEMA = pa.schema(
    [
        # Of one shard: items, and bytes of their content.
        pa.field("items", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)
FIRST_REJECTS_SCHEMA = REJECT_SCHEMA.append(pa.field("shard", pa.int32(), nullable=False))
"""Some rejects, with the index of their shard."""
CONFLICT_SCHEMA = pa.schema([pa.field("file", pa.int32(), nullable=False)])


@dataclass(frozen=True)
class SnapshotSide:
    """A snapshot of a checkpoint, by name: small enough to travel, read where it is used."""

    checkpoint: Checkpoint
    name: str

    def open(self) -> Snapshot:
        return self.checkpoint.read_snapshot(self.name)


class EmbeddedAmounts(NamedTuple):
    """What there is to embed, named as in `COUNTS_SCHEMA`.

    Attributes:
        bytes: of content of the items that are new or changed.
        other_content: how many of these have a content that their source does not have; others can take its vectors.
        other_bytes: of the content of those.
    """

    bytes: int
    other_content: int
    other_bytes: int


class Findings:
    """The results of a diff in its folder.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def uri(self, name: str) -> str:
        return filesystem.join(self.folder, f"{name}.parquet")

    def plan_uri(self, shard: str) -> str:
        return self.uri(f"plan/{shard}")

    def plans(self) -> dict[str, str]:
        """The plan of each shard that has one."""
        files = filesystem.list_files(self.folder, "plan/*.parquet")
        return {file.uri.rpartition("/")[2].removesuffix(".parquet"): file.uri for file in files}

    def piece_uri(self, name: str, piece: int) -> str:
        """A file of a table."""
        return self.uri(f"{name}/{piece}")

    @property
    def listing_uri(self) -> str:
        """Table of `LISTING_SCHEMA`, by name."""
        return self.uri("listing")

    @property
    def files_uri(self) -> str:
        """Table of `transforms.read.shard.TO_READ`."""
        return self.uri("files")

    @cached_property
    def duplicates(self) -> pa.Table:
        return self._read("duplicates", DUPLICATE_SCHEMA)

    @cached_property
    def conflicts(self) -> list[int]:
        return sorted(set(self._read("conflicts", CONFLICT_SCHEMA).column("file").to_pylist()))

    @cached_property
    def dead(self) -> pa.Table:
        return self._read("dead", DEAD_PARTS_SCHEMA)

    @cached_property
    def counts(self) -> dict[Kind, int]:
        """Items of the files that were read, by kind."""
        table = self._read("counts", COUNTS_SCHEMA)
        return {kind: pc.sum(table.column(kind.name.lower())).as_py() or 0 for kind in Kind}

    @cached_property
    def amounts(self) -> EmbeddedAmounts:
        """What the items that are new or changed have to embed."""
        table = self._read("counts", COUNTS_SCHEMA)
        return EmbeddedAmounts(*(pc.sum(table.column(name)).as_py() or 0 for name in EmbeddedAmounts._fields))

    @cached_property
    def sample(self) -> pa.Table:
        """Some of the items that were read (`SAMPLE_SCHEMA`), chosen and ordered by their digests alone."""
        return self._read("sample", SAMPLE_SCHEMA)

    def sample_to_embed(self, *, same_content: bool) -> pa.Table:
        """The items of the sample that are new or changed.

        Args:
            same_content: also those with the content of their source.
        """
        drawn = self._read("drawn", DRAWN_SCHEMA)
        if not same_content:
            drawn = drawn.filter(pc.invert(drawn.column("same_content")))
        return self.sample.filter(pc.is_in(self.sample.column("digest"), value_set=drawn.column("digest")))

    @cached_property
    def errors(self) -> dict[str, int]:
        """Rejects of the files that were read, by error; what only the encoder rejects is not among them."""
        found: Counter[str] = Counter()
        for row in self._read("errors", ERRORS_SCHEMA).to_pylist():
            found[row["error"]] += row["count"]
        return dict(sorted(found.items()))

    @property
    def surveyed(self) -> tuple[int, int]:
        """Items that were read, and bytes of their content: for a run that did not start the job."""
        table = self._read("surveyed", SURVEYED_SCHEMA)
        return pc.sum(table.column("items")).as_py() or 0, pc.sum(table.column("bytes")).as_py() or 0

    @cached_property
    def first_rejects(self) -> pa.Table:
        """The first rejects of each shard (`FIRST_REJECTS_SCHEMA`), in corpus order."""
        return self._read("rejects", FIRST_REJECTS_SCHEMA)

    @property
    def deleted(self) -> int:
        """Items of the snapshot whose id and content are gone."""
        number: int = pc.sum(self.dead.column("deleted")).as_py() or 0
        return number

    def items_left(self, before: int | None) -> int:
        """Items that the corpus has now.

        Args:
            before: items of the snapshot that it was compared with; None if there was none.
        """
        if before is not None:
            return before - self.deleted + self.counts[Kind.NEW]
        left_out: int = self.duplicates.num_rows
        return self.surveyed[0] - left_out - sum(self.errors.values())

    def spared(self) -> dict[int, int]:
        """Items that stay although their file could not be read to its end, by position in the listing."""
        files = self.dead.column("spared").combine_chunks().flatten()
        return {entry["values"]: entry["counts"] for entry in pc.value_counts(files).to_pylist()}

    def _read(self, name: str, schema: pa.Schema) -> pa.Table:
        files = filesystem.list_files(self.folder, f"{name}/*.parquet")
        if not files:
            return schema.empty_table()
        table = pa.concat_tables([read_table(file.uri) for file in files])
        order = [(column, "ascending") for column in _ORDER if column in table.column_names]
        return table.sort_by(order) if order else table

    def remove(self) -> None:
        """Deletes all files of the diff."""
        filesystem.delete_folder(self.folder)
