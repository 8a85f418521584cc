"""Rows of a collection that its snapshot does not have, found by listing all ids on workers.

Each worker lists the ids of a range. They meet the ids of the parts in buckets by a hash, and not by ranges: a server
that sorts ids in another way than this program would else make foreign rows of good ones, which a repair deletes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from schemas.config import Collection
from schemas.milvus import CollectionSpec
from transforms import milvus
from transforms.checkpoint import read_table, write_table
from transforms.load.writers import DealToWriters
from transforms.milvus.rows.row_check import every_id
from transforms.support import stop
from transforms.support.storage import filesystem
from transforms.support.versioned_dofn import VersionedDoFn
from transforms.support.work_list import ReadWork
from transforms.support.work_rows import WorkRows
from transforms.verify.part_groups import PartGroup, SnapshotRows, WithRows

ROWS_OF_A_RANGE = 250_000
"""About how many ids a worker lists at a time, and how many meet in a bucket."""
_IDS = pa.schema([pa.field("id", pa.string(), nullable=False)])

IdRange = tuple[str, str]
"""The ids that follow one id, up to another one; "" for no limit."""


def _range_row(given: IdRange) -> dict[str, Any]:
    return {"after": given[0], "to": given[1]}


def _range_of(row: dict[str, Any]) -> IdRange:
    return row["after"], row["to"]


ID_RANGES = WorkRows(pa.schema([("after", pa.string()), ("to", pa.string())]), _range_row, _range_of)
"""How an `IdRange` travels."""


def ranges_of(sample: Sequence[str], rows: int) -> list[IdRange]:
    """Ranges of about `ROWS_OF_A_RANGE` rows each, which together have every id.

    Args:
        sample: some ids, of which some become the borders.
        rows: in the collection.
    """
    some = sorted(set(sample))
    wanted = min(len(some), rows // ROWS_OF_A_RANGE)
    borders = sorted({some[at * len(some) // (wanted + 1)] for at in range(1, wanted + 1)} - {""})
    return list(zip(["", *borders], [*borders, ""], strict=True))


def filter_of(given: IdRange) -> str:
    """The range as a filter of Milvus.

    >>> filter_of(("a", "b")), filter_of(("b", ""))
    ('id > "a" and id <= "b"', 'id > "b"')
    """
    after, to = given
    sides = [f"id > {milvus.quoted(after)}"] if after else []
    return " and ".join([*sides, f"id <= {milvus.quoted(to)}"] if to else sides)


@dataclass(eq=False)
class FindForeign(beam.PTransform):  # type: ignore[misc]
    """PCollection of `PartGroup` -> PCollection of the numbers of the files with ids that no part has.

    Attributes:
        config: the collection's section of the configuration.
        spec: the collection.
        rows: what it should hold.
        ranges: the ids to list, `IdRange`.
        buckets: how many buckets the ids meet in.
        folder: of the findings.
        readers: most ranges at once.
        listed: most ids of a bucket.
    """

    config: Collection
    spec: CollectionSpec
    rows: SnapshotRows
    ranges: ReadWork
    buckets: int
    folder: str
    readers: int
    listed: int

    def expand(self, groups: beam.PCollection) -> beam.PCollection:
        own = groups | "OwnIds" >> beam.ParDo(_Own(self.rows, self.buckets))
        held = (
            groups.pipeline
            | "Ranges" >> self.ranges
            | "Readers" >> DealToWriters(self.readers, filter_of)
            | "HeldIds" >> beam.ParDo(_Held(self.config, self.spec.name, self.buckets))
        )
        return (
            {"own": own, "held": held}
            | "ByBucket" >> beam.CoGroupByKey()
            | "Foreign" >> beam.ParDo(_Foreign(self.folder, self.listed))
        )


def _split(ids: list[str], buckets: int) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.int64]], Any]]:
    """The ids by bucket: its number, positions of the ids, their hashes int64[n]."""
    hashes = np.array([int.from_bytes(blake2b(row_id.encode(), digest_size=8).digest()) for row_id in ids], np.uint64)
    places = (hashes % np.uint64(buckets)).astype(np.int64)
    order = np.argsort(places, kind="stable")
    borders = np.flatnonzero(np.diff(places[order])) + 1
    for at in np.split(order, borders) if ids else []:
        yield int(places[at[0]]), at, hashes[at]


class _Own(WithRows):
    def __init__(self, rows: SnapshotRows, buckets: int) -> None:
        super().__init__(rows)
        self._buckets = buckets

    def process(self, group: PartGroup) -> Iterator[tuple[int, bytes]]:
        ids = [row_id for _, rows in self._rows.of(group, ["id"]) for row_id in rows.column("id").to_pylist()]
        for bucket, _, hashes in _split(ids, self._buckets):
            yield bucket, hashes.tobytes()


class _Held(VersionedDoFn):
    def __init__(self, config: Collection, name: str, buckets: int) -> None:
        self._config, self._name, self._buckets = config, name, buckets
        self._connection: Any = None

    def setup(self) -> None:
        self._connection = milvus.connect(self._config, create=False)

    def process(self, given: tuple[int, Iterable[IdRange]]) -> Iterator[tuple[int, tuple[list[str], bytes]]]:
        for some in given[1]:
            for ids in every_id(self._connection, self._name, filter_of(some)):
                stop.check()
                for bucket, at, hashes in _split(ids, self._buckets):
                    yield bucket, ([ids[one] for one in at], hashes.tobytes())

    def teardown(self) -> None:
        if self._connection is not None:
            self._connection.close()


class _Foreign(VersionedDoFn):
    def __init__(self, folder: str, listed: int) -> None:
        self._folder = folder
        self._listed = listed

    def process(self, given: tuple[int, dict[str, Iterable[Any]]]) -> Iterator[int]:
        bucket, sides = given
        own = np.sort(np.frombuffer(b"".join(sides["own"]), np.uint64))
        foreign: list[str] = []
        for ids, packed in sides["held"]:
            hashes = np.frombuffer(packed, np.uint64)
            places = np.minimum(np.searchsorted(own, hashes), max(0, len(own) - 1))
            known = own[places] == hashes if len(own) else np.zeros(len(hashes), bool)
            foreign += [ids[at] for at in np.flatnonzero(~known)]
        if foreign:
            table = pa.table([sorted(foreign)[: self._listed]], schema=_IDS)
            write_table(filesystem.join(self._folder, "foreign", f"{bucket}.parquet"), table)
        yield bucket


def foreign_in(folder: str) -> list[str]:
    """The ids that were found, sorted."""
    files = filesystem.list_files(folder, "foreign/*.parquet")
    return sorted(row_id for file in files for row_id in read_table(file.uri).column("id").to_pylist())
