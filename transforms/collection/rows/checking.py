"""Holding a collection against the checkpoint, row by row, in memory that doesn't grow with the corpus."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from schemas import config as settings
from transforms.collection.calling import again, call
from transforms.collection.rows.loading import quoted
from transforms.collection.rows.reading import read

if TYPE_CHECKING:
    from pymilvus import MilvusClient

SLICE_ROWS = 8192
"""Rows asked for in one query by key; Milvus answers at most 16,384. A server needs 0.2 s for its consistency alone."""

SLICE_BYTES = 4 << 20
"""Most bytes of ids in one query's filter."""

PAGE_ROWS = 2000
"""Rows of a page when all ids are listed."""

LISTED = 1000
"""Most ids of a kind that are listed; all are counted."""


@dataclass
class RowCheck:
    """What a check found.

    Attributes:
        expected: rows of the snapshot.
        found: of those, rows in the collection (stale ones too).
        total: rows in the collection, by count(*).
        missing: ids of the snapshot that the collection lacks (the first 1,000).
        unexpected: ids of the collection that the snapshot lacks (the first 1,000).
        stale: ids whose content hash differs (the first 1,000).
        part_indexes_missing: ordinals of the tables with missing or stale rows.
    """

    expected: int = 0
    found: int = 0
    total: int = 0
    missing_count: int = 0
    unexpected_count: int = 0
    stale_count: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    part_indexes_missing: list[int] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.missing_count or self.unexpected_count or self.stale_count)


def verify_rows(
    client: MilvusClient, config: settings.Collection, name: str, parts: Iterator[pa.Table], listed: int | None = None
) -> RowCheck:
    """Compares a loaded collection with the rows that it should hold.

    Args:
        parts: tables with the columns id and content_hash; each id once in all of them.
        listed: most ids of unexpected rows that are looked up, 1,000 if not said; with 0 these are only counted.

    Raises:
        CollectionError: where Milvus doesn't answer the queries.
    """
    check = RowCheck()
    listed = LISTED if listed is None else listed
    with tempfile.TemporaryFile(prefix="vecbeam-verify-") as spool:
        for ordinal, part in enumerate(parts):
            before = check.missing_count + check.stale_count
            for ids, hashes in _slices(part):
                _compare(client, config, name, ids, hashes, check)
                spool.write(_fingerprints(ids).tobytes())
            if check.missing_count + check.stale_count > before:
                check.part_indexes_missing.append(ordinal)
        check.total = count(client, config, name)
        if check.total != check.found and listed > 0:
            # What is too many is known by counting. Only then is it worth to look which rows they are; a key that
            # stands twice in a server's collection is too many as well, and has no id of its own to list.
            check.unexpected_count = max(0, check.total - check.found)
            check.unexpected = list(_unexpected(client, config, name, spool, min(listed, check.unexpected_count)))
    return check


def count(client: MilvusClient, config: settings.Collection, name: str) -> int:
    """Rows of a loaded collection. (Its statistics would count an upserted row twice.)"""
    answer = read(client, config, client.query, name, filter="", output_fields=["count(*)"])
    return int(answer[0]["count(*)"])


def _slices(part: pa.Table) -> Iterator[tuple[list[str], list[str]]]:
    ids, hashes = part.column("id").to_pylist(), part.column("content_hash").to_pylist()
    start = size = 0
    for at, row_id in enumerate(ids):
        size += len(row_id) * 4
        if at + 1 - start == SLICE_ROWS or size >= SLICE_BYTES:
            yield ids[start : at + 1], hashes[start : at + 1]
            start, size = at + 1, 0
    if start < len(ids):
        yield ids[start:], hashes[start:]


def _compare(
    client: MilvusClient, config: settings.Collection, name: str, ids: list[str], hashes: list[str], check: RowCheck
) -> None:
    wanted_rows = f"id in [{','.join(map(quoted, ids))}]"
    answer = read(client, config, client.query, name, filter=wanted_rows, output_fields=["id", "content_hash"])
    has = {row["id"]: row["content_hash"] for row in answer}
    check.expected += len(ids)
    for row_id, wanted in zip(ids, hashes, strict=True):
        if row_id not in has:
            check.missing_count += 1
            _list(check.missing, row_id)
            continue
        check.found += 1
        if has[row_id] != wanted:
            check.stale_count += 1
            _list(check.stale, row_id)


def _list(ids: list[str], row_id: str) -> None:
    if len(ids) < LISTED:
        ids.append(row_id)


def _fingerprints(ids: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    # The interpreter's own hash of a string: 64 bits, the same for the length of this process, which is enough here.
    return np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))


def _unexpected(
    client: MilvusClient, config: settings.Collection, name: str, spool: IO[bytes], wanted: int
) -> Iterator[str]:
    spool.flush()
    size = spool.seek(0, 2)
    # On disk, eight bytes a row: the system may take the pages out of memory as it likes.
    expected = np.memmap(spool, dtype=np.int64, mode="r+", shape=(size // 8,)) if size else np.empty(0, np.int64)
    expected.sort()
    listed = 0
    for ids in every_id(client, config, name):
        own = _fingerprints(ids)
        places = np.searchsorted(expected, own)
        known = np.zeros(len(ids), dtype=bool)
        inside = places < len(expected)
        known[inside] = expected[places[inside]] == own[inside]
        for at in np.flatnonzero(~known):
            yield ids[at]
            listed += 1
            if listed >= wanted:
                return


def every_id(client: MilvusClient, config: settings.Collection, name: str) -> Iterator[list[str]]:
    """All ids of a loaded collection, some thousand at a time."""
    iterator = call(
        config, client.query_iterator, name, batch_size=PAGE_ROWS, output_fields=["id"], consistency_level="Strong"
    )
    try:
        # A page that failed is asked for again: the iterator moves on only after an answer.
        while batch := again(config, f"query_iterator {name}", iterator.next):
            yield [row["id"] for row in batch]
    finally:
        iterator.close()
