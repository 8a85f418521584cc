"""Comparing a collection with the checkpoint, row by row, in memory that doesn't grow with the corpus."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa

from schemas.milvus import CollectionSpec
from transforms.milvus.rows.contents import by_ids, differences, read_back, should_hold, slices
from transforms.milvus.rows.read import read
from transforms.support import metrics
from transforms.support.fingerprints import fingerprints

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

PAGE_ROWS = 2000
"""Rows of a page when all ids are listed."""

LISTED = 1000
"""Most ids of a kind that are listed; all are counted."""

COMPARED = "rows_compared"
"""Counter of rows that were compared."""

ALL_COLUMNS = "all columns"
SAMPLED = "sampled"
"""Ids and hashes of the written rows, or only their number, and all columns of some rows."""
IDS_AND_HASHES = "ids and hashes"


@dataclass
class RowCheck:
    """The result of a check.

    Attributes:
        expected: rows of the snapshot.
        found: of those, rows in the collection (stale and damaged ones too).
        total: rows in the collection, by count(*).
        missing: ids of the snapshot that the collection does not have (the first 1,000).
        unexpected: ids of the collection that the snapshot does not have (the first 1,000).
        stale: ids whose content hash differs (the first 1,000).
        damaged: ids whose content hash is right and which differ in another column (the first 1,000).
        columns: of the damaged rows, how many differ in each column.
        duplicated: ids of the snapshot that are in the collection more than once (the first 1,000). Each further copy
            counts as unexpected.
        part_indexes_missing: ordinals of the tables with rows that are missing, stale, damaged or duplicated.
    """

    expected: int = 0
    found: int = 0
    total: int = 0
    missing_count: int = 0
    unexpected_count: int = 0
    stale_count: int = 0
    damaged_count: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    columns: dict[str, int] = field(default_factory=dict)
    duplicated: list[str] = field(default_factory=list)
    part_indexes_missing: list[int] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.missing_count or self.unexpected_count or self.stale_count or self.damaged_count)

    @property
    def wrong(self) -> int:
        """Rows of the snapshot that the collection does not have as they are."""
        return self.missing_count + self.stale_count + self.damaged_count

    def has_others(self) -> bool:
        """Counts the unexpected rows, by `total`; whether the ids of the collection must be listed to name them.

        Only where the count shows too many rows are they looked up; a key that is a duplicate in a server's collection
        is too many as well, and has no id of its own to list.
        """
        self.unexpected_count = max(0, self.total - self.found)
        return self.total != self.found

    def add(self, later: RowCheck) -> None:
        """Adds what was found in parts that follow; `total` and unexpected rows are of the whole collection."""
        for name in _OF_PARTS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        for name in _LISTS:
            ids = getattr(self, name)
            ids.extend(getattr(later, name)[: LISTED - len(ids)])
        for column, number in later.columns.items():
            self.columns[column] = self.columns.get(column, 0) + number
        self.part_indexes_missing = sorted({*self.part_indexes_missing, *later.part_indexes_missing})

    def as_json(self) -> bytes:
        """What was found, for the file of a worker."""
        return orjson.dumps(self)

    @classmethod
    def of_json(cls, data: bytes) -> RowCheck:
        """What `as_json` gave."""
        return cls(**orjson.loads(data))

    def problems(self, shown: int = 3) -> list[str]:
        """The problems, one phrase each with the first ids; empty if all is right.

        >>> RowCheck(damaged_count=2, damaged=["a#0", "b#0"], columns={"vector": 2, "text": 1}).problems()
        ['2 rows damaged: they differ in vector (2), text (1) (first: a#0, b#0)']
        """
        in_columns = ", ".join(f"{name} ({rows})" for name, rows in self.columns.items())
        kinds = (
            (self.missing_count, "missing", self.missing),
            (self.unexpected_count, "unexpected", self.unexpected or self.duplicated),
            (self.stale_count, "stale", self.stale),
            (self.damaged_count, f"damaged: they differ in {in_columns}", self.damaged),
        )
        return [
            f"{number} rows {kind}" + (f" (first: {', '.join(ids[:shown])})" if ids else "")
            for number, kind, ids in kinds
            if number
        ]


_OF_PARTS = ("expected", "found", "missing_count", "stale_count", "damaged_count")
_LISTS = ("missing", "stale", "damaged", "duplicated")


def verify_rows(
    connection: Milvus,
    name: str,
    parts: Iterator[pa.Table],
    listed: int | None = None,
    spec: CollectionSpec | None = None,
) -> RowCheck:
    """Compares a loaded collection with the rows that it should hold.

    Args:
        parts: tables with the columns id and content_hash, and those that are compared too; each id once in all
            of the tables.
        listed: most ids of unexpected rows that are looked up, 1,000 if not said; with 0 these are only counted.
        spec: the collection, whose defaults replace null metadata. With it all columns of the tables are
            compared, vectors bit for bit; without it ids and hashes are.

    Raises:
        CollectionError: if Milvus doesn't answer the queries.
    """
    check = RowCheck()
    listed = LISTED if listed is None else listed
    with tempfile.TemporaryFile(prefix="vecbeam-verify-") as spool:
        for ordinal, part in enumerate(parts):
            check_part(connection, name, ordinal, part, spec, check)
            spool.write(fingerprints(part.column("id").to_pylist()).tobytes())
        check.total = count(connection, name)
        if listed > 0 and check.has_others():
            check.unexpected = list(_unexpected(connection, name, spool, min(listed, check.unexpected_count)))
    return check


def check_part(
    connection: Milvus, name: str, ordinal: int, part: pa.Table, spec: CollectionSpec | None, check: RowCheck
) -> None:
    """Compares the rows of a part with a loaded collection, and adds what it finds to a check; see `verify_rows`.

    Args:
        ordinal: names the part in `RowCheck.part_indexes_missing`.
    """
    before = check.wrong
    if spec is None:
        part = part.select(["id", "content_hash"])
    for rows in slices(part):
        _compare(connection, name, rows, spec, check)
        metrics.count(COMPARED, rows.num_rows)
    if check.wrong > before:
        check.part_indexes_missing.append(ordinal)


def find_duplicates(connection: Milvus, name: str, parts: Iterator[pa.Table], check: RowCheck) -> None:
    """Finds ids that the collection holds more than once, and records them; a server keeps both copies.

    A query by id returns only one of the copies, so they are found by counting: slice by slice, then by halves.

    Args:
        parts: the tables that were checked, with the column id.
    """
    for ordinal, part in enumerate(parts):
        check_duplicates(connection, name, ordinal, part, check)


def check_duplicates(connection: Milvus, name: str, ordinal: int, part: pa.Table, check: RowCheck) -> None:
    """Finds the duplicates of the ids of one part; see `find_duplicates`."""
    found = [
        row_id
        for rows in slices(part.select(["id"]))
        for row_id in _twice(connection, name, rows.column("id").to_pylist())
    ]
    for row_id in found:
        _list(check.duplicated, row_id)
    if found and ordinal not in check.part_indexes_missing:
        check.part_indexes_missing = sorted([*check.part_indexes_missing, ordinal])


def _twice(connection: Milvus, name: str, ids: list[str]) -> list[str]:
    answer = read(connection, connection.client.query, name, filter=by_ids(ids), output_fields=["id"])
    found = {row["id"] for row in list.__iter__(answer)}
    if count(connection, name, by_ids(ids)) <= len(found):
        return []
    if len(ids) == 1:
        return ids
    middle = len(ids) // 2
    return [row_id for some in (ids[:middle], ids[middle:]) for row_id in _twice(connection, name, some)]


def count(connection: Milvus, name: str, filter: str = "") -> int:
    """Counts the rows of a loaded collection, or those that match a filter. (Statistics count upserted rows twice.)"""
    answer = read(connection, connection.client.query, name, filter=filter, output_fields=["count(*)"])
    return int(answer[0]["count(*)"])


def _compare(
    connection: Milvus,
    name: str,
    rows: pa.Table,
    spec: CollectionSpec | None,
    check: RowCheck,
) -> None:
    ids = rows.column("id").to_pylist()
    held = read_back(connection, name, ids, rows.schema)
    place = {row_id: at for at, row_id in enumerate(held.column("id").to_pylist())}
    here = [at for at, row_id in enumerate(ids) if row_id in place]
    check.expected += len(ids)
    check.found += len(here)
    check.missing_count += len(ids) - len(here)
    if len(here) < len(ids):
        for row_id in ids:
            if row_id not in place:
                _list(check.missing, row_id)
    expected = rows if len(here) == len(ids) else rows.take(pa.array(here, pa.int64()))
    held = held.take(pa.array([place[ids[at]] for at in here], pa.int64()))
    differ = differences(should_hold(spec, expected) if spec else expected, held)
    stale = differ.pop("content_hash")
    damaged = np.logical_or.reduce([np.zeros(len(here), bool), *differ.values()]) & ~stale
    check.stale_count += int(stale.sum())
    check.damaged_count += int(damaged.sum())
    for rows_of_it, listed in ((stale, check.stale), (damaged, check.damaged)):
        for at in np.flatnonzero(rows_of_it)[: LISTED - len(listed)]:
            listed.append(ids[here[at]])
    for column, differs in differ.items():
        if number := int((differs & damaged).sum()):
            check.columns[column] = check.columns.get(column, 0) + number


def _list(ids: list[str], row_id: str) -> None:
    if len(ids) < LISTED:
        ids.append(row_id)


def _unexpected(connection: Milvus, name: str, spool: IO[bytes], wanted: int) -> Iterator[str]:
    spool.flush()
    size = spool.seek(0, 2)
    # On disk, eight bytes per row: the system may take the pages out of memory as it likes.
    expected = np.memmap(spool, dtype=np.int64, mode="r+", shape=(size // 8,)) if size else np.empty(0, np.int64)
    expected.sort()
    listed = 0
    for ids in every_id(connection, name):
        own = fingerprints(ids)
        places = np.searchsorted(expected, own)
        known = np.zeros(len(ids), dtype=bool)
        inside = places < len(expected)
        known[inside] = expected[places[inside]] == own[inside]
        for at in np.flatnonzero(~known):
            yield ids[at]
            listed += 1
            if listed >= wanted:
                return


def every_id(connection: Milvus, name: str, filter: str = "") -> Iterator[list[str]]:
    """All ids of a loaded collection, or those that a filter leaves, some thousand at a time."""
    iterator = connection.call(
        connection.client.query_iterator,
        name,
        batch_size=PAGE_ROWS,
        filter=filter,
        output_fields=["id"],
        consistency_level="Strong",
    )
    try:
        # A page that failed is requested again: the iterator moves on only after an answer.
        while batch := connection.again(f"query_iterator {name}", iterator.next):
            yield [row["id"] for row in batch]
    finally:
        iterator.close()
