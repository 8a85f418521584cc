"""A table in the store of which each worker reads the rows that it needs."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import SCHEMA_VERSION
from transforms.support.storage.parquet_checksums import checked_footer, parquet_of
from transforms.support.storage.parquet_file import facts_of, write_pieces
from transforms.support.storage.watched_file import opened, parsing

GROUP_ROWS = 8_192
"""Rows of a row group: what a worker reads at least."""
HELD_GROUPS = 4


def write_rows(uri: str, tables: Iterable[pa.Table], by: str = "") -> None:
    """Writes a table for `StoredTable`.

    Args:
        tables: its rows, in one table at least.
        by: a column of text that sorts them, to look rows up.
    """
    firsts: list[str] = []
    rows = 0

    def noted() -> Iterator[pa.Table]:
        nonlocal rows
        for table in tables:
            if by:
                starts = range(-rows % GROUP_ROWS, table.num_rows, GROUP_ROWS)
                firsts.extend(table.column(by)[at].as_py() for at in starts)
            rows += table.num_rows
            yield table

    write_pieces(uri, noted(), {}, GROUP_ROWS, lambda: {"schema_version": SCHEMA_VERSION, "firsts": firsts})


class StoredTable:
    """A table that `write_rows` wrote; some of its rows are in memory at a time.

    Raises:
        CheckpointError: if it is missing or damaged.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with opened(uri) as stream, parsing(uri, stream) as watched:
            self._footer = checked_footer(watched)
        self._firsts: list[str] = facts_of(self._footer.metadata.metadata, uri)["firsts"]
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()

    def _group(self, at: int) -> pa.Table:
        if at in self._groups:
            self._groups.move_to_end(at)
            return self._groups[at]
        with opened(self._uri) as stream, parsing(self._uri, stream) as watched:
            table = parquet_of(watched, self._footer).read_row_group(at)
        self._groups[at] = table
        if len(self._groups) > HELD_GROUPS:
            self._groups.popitem(last=False)
        return table

    def rows(self, first: int, count: int) -> pa.Table:
        """The rows [first, first + count)."""
        groups = range(first // GROUP_ROWS, (first + count - 1) // GROUP_ROWS + 1)
        table = pa.concat_tables([self._group(at) for at in groups])
        return table.slice(first - groups[0] * GROUP_ROWS, count)

    def find(self, by: str, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows whose value in the sorted column is one of these; missing values have no row.

        Args:
            by: that column; its values are unique.
        """
        found: dict[str, dict[str, Any]] = {}
        groups: dict[int, list[str]] = {}
        for value in wanted:
            if (at := bisect.bisect_right(self._firsts, value) - 1) >= 0:
                groups.setdefault(at, []).append(value)
        for at, values in sorted(groups.items()):
            table = self._group(at)
            column = table.column(by)
            rows = table.filter(pc.is_in(column, value_set=pa.array(values, column.type)))
            found.update((row[by], row) for row in rows.to_pylist())
        return found
