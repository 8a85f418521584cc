"""Tables of millions of rows in a temporary file, which are mapped, sorted and compared one piece at a time.

A file has no name and disappears with its table, however the process ends. It is in the folder TMPDIR.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import StorageError

ROWS = 65_536
"""Rows of a piece. A table of no more stays in memory."""
RUN_ROWS = 4 * ROWS
"""Rows that are sorted at one time."""
LEAST_ROWS = 1_024
"""Fewest rows of a sorted run that are read while runs are merged."""

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Positions = np.ndarray[Any, np.dtype[np.int64]]

_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def in_chunks(rows: Iterable[tuple[object, ...]], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows as tables of up to `ROWS` rows, which is how many are Python objects at one time."""
    waiting = iter(rows)
    while some := list(islice(waiting, ROWS)):
        arrays = [pa.array(column, field.type) for column, field in zip(zip(*some, strict=True), schema, strict=True)]
        yield pa.Table.from_arrays(arrays, schema=schema)


def regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of some tables in tables of `rows` rows, the last one smaller; at least one if any is given."""
    held: list[pa.Table] = []
    count, empty = 0, None
    for table in tables:
        at, empty = 0, table
        while at < table.num_rows:
            some = table.slice(at, rows - count)
            held.append(some)
            at, count = at + some.num_rows, count + some.num_rows
            if count == rows:
                yield pa.concat_tables(held).combine_chunks()
                held, count, empty = [], 0, None
    if held or empty is not None:
        yield pa.concat_tables(held or [empty]).combine_chunks()


def spilled(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """The rows of some tables as one table, in a temporary file if they are more than one piece.

    Raises:
        StorageError: if the temporary folder can't hold it.
    """
    waiting = regrouped(tables, ROWS)
    first = list(islice(waiting, 2))
    if len(first) < 2:
        return first[0] if first else schema.empty_table()
    with _writing():
        file = tempfile.TemporaryFile(prefix="vecbeam-")  # noqa: SIM115  closed below
    with file:
        writer = pa.ipc.new_file(file, schema)
        for piece in chain(first, waiting):
            with _writing():
                writer.write_table(piece)
        with _writing():
            writer.close()
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _maps.add(mapped)
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"can't keep a listing of many files in {tempfile.gettempdir()}: {error.strerror or error}",
            "free some space there, or name another folder in the environment variable TMPDIR",
        ) from error


def let_go() -> None:
    """Releases the pages of mapped tables from this process's memory; they return on access."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_maps):
            mapped.madvise(mmap.MADV_DONTNEED)


def pieces(table: pa.Table) -> Iterator[pa.Table]:
    """A table in tables of up to `ROWS` rows; at least one."""
    for start in range(0, max(1, table.num_rows), ROWS):
        yield table.slice(start, ROWS)
        if table.num_rows > ROWS:
            let_go()


def filtered(table: pa.Table, mask: Mask) -> pa.Table:
    """The rows for which the mask is true; the table itself if that is all."""
    if mask.all():
        return table
    masks = (pa.array(mask[start : start + ROWS]) for start in range(0, max(1, len(mask)), ROWS))
    return spilled((piece.filter(some) for piece, some in zip(pieces(table), masks, strict=True)), table.schema)


def numbered(table: pa.Table, name: str = "row") -> Iterator[pa.Table]:
    """The pieces of a table with the number of each row as the last column."""
    start = 0
    for piece in pieces(table):
        yield piece.append_column(name, pa.array(np.arange(start, start + piece.num_rows, dtype=np.int64)))
        start += piece.num_rows


def find(column: pa.ChunkedArray, value: bytes) -> int:
    """The first row of a sorted column that is not less than a value."""
    return bisect.bisect_left(range(len(column)), value, key=lambda at: column[at].as_py())


def sorted_pieces(tables: Iterable[pa.Table], by: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of some tables, sorted; those with one value in the first column are in one piece.

    Args:
        by: names of columns, the first of text or bytes.
    """
    order = [(name, "ascending") for name in by]
    runs: list[pa.Table] = []
    waiting = regrouped(tables, RUN_ROWS)
    for run in waiting:
        run = run.sort_by(order)
        if not runs and run.num_rows < RUN_ROWS:
            yield run
            return
        runs.append(spilled([run], run.schema))
        let_go()
    if runs:
        yield from _merged(runs, order)


def _merged(runs: list[pa.Table], order: list[tuple[str, str]]) -> Iterator[pa.Table]:
    columns = [run.column(order[0][0]) for run in runs]
    rows = max(LEAST_ROWS, RUN_ROWS // len(runs))
    starts = [0] * len(runs)
    ends: dict[int, int] = {}
    lasts: dict[int, Any] = {}
    moved = list(range(len(runs)))
    while True:
        for at in moved:
            ends.pop(at, None), lasts.pop(at, None)
            if starts[at] < len(columns[at]):
                end = min(starts[at] + rows, len(columns[at]))
                lasts[at] = columns[at][end - 1].as_py()
                ends[at] = _after(columns[at], lasts[at], end, len(columns[at]))
        if not ends:
            return
        # All rows up to the least of the last values of all windows are in the windows.
        bound = min(lasts.values())
        moved, taken = [], []
        for at, end in ends.items():
            upto = _after(columns[at], bound, starts[at], end)
            if upto > starts[at]:
                taken.append(runs[at].slice(starts[at], upto - starts[at]))
                starts[at] = upto
                moved.append(at)
        yield pa.concat_tables(taken).sort_by(order).combine_chunks()
        let_go()


def _after(column: pa.ChunkedArray, value: Any, start: int, end: int) -> int:
    if start == end or column[start].as_py() > value:
        return start
    return bisect.bisect_right(range(len(column)), value, start, end, key=lambda at: column[at].as_py())


def beside(left: pa.Table, right: pa.Table, by: str) -> Iterator[pa.Table]:
    """For each piece of a table the rows of another one that have the same values in a column, in the same order.

    Args:
        left: values of its column are unique.
        right: as `left`; its rows are returned, all null if it has none.
    """
    kind = left.schema.field(by).type
    schema = pa.schema([field.with_nullable(True) for field in right.schema])
    schema = schema.set(schema.get_field_index(by), pa.field(by, kind))
    rights = (piece.cast(schema) for piece in pieces(right))
    if left.num_rows == right.num_rows and _same(left.select([by]), right.select([by])):
        yield from rights  # nothing came or went
        return

    def sides() -> Iterator[pa.Table]:
        for piece in numbered(left.select([by])):
            columns: list[Any] = [pa.nulls(piece.num_rows, field.type) for field in schema]
            columns[schema.get_field_index(by)] = piece.column(by)
            yield _sided(pa.table(columns, schema=schema), 0, piece.column("row"))
        for piece in rights:
            yield _sided(piece, 1, pa.nulls(piece.num_rows, pa.int64()))

    def found() -> Iterator[pa.Table]:
        missing = np.ones(left.num_rows, bool)
        for piece in sorted_pieces(sides(), [by, "side"]):
            at = _before_equals(piece.column(by))
            rows = piece.column("row").take(pa.array(at))
            missing[rows.to_numpy()] = False
            yield piece.select(schema.names).take(pa.array(at + 1)).append_column("row", rows)
        rest = np.flatnonzero(missing)
        for start in range(0, len(rest), ROWS):
            rows = pa.array(rest[start : start + ROWS])
            nothing = [pa.nulls(len(rows), field.type) for field in schema]
            yield pa.table(nothing, schema=schema).append_column("row", rows)

    in_order = (piece.select(schema.names) for piece in sorted_pieces(found(), ["row"]))
    yield from regrouped(in_order, ROWS)


def interleaved(chosen: pa.Table, others: pa.Table, is_chosen: Mask) -> pa.Table:
    """The rows of two tables as one, in the order of the mask: true stands for the next row of `chosen`."""

    def tables() -> Iterator[pa.Table]:
        at = 0
        for start in range(0, len(is_chosen), ROWS):
            mask = is_chosen[start : start + ROWS]
            count = int(mask.sum())
            some = (chosen.slice(at, count), others.slice(start - at, len(mask) - count))
            order = np.argsort(np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)]))
            yield pa.concat_tables(some).combine_chunks().take(pa.array(order))
            at += count
            let_go()

    return spilled(tables(), chosen.schema)


def _sided(piece: pa.Table, side: int, rows: pa.Array | pa.ChunkedArray) -> pa.Table:
    return piece.append_column("side", pa.array(np.full(piece.num_rows, side, np.int8))).append_column("row", rows)


def _same(left: pa.Table, right: pa.Table) -> bool:
    both = zip(pieces(left), pieces(right), strict=True)
    return all(one.equals(other.cast(one.schema)) for one, other in both)


def repeats(table: pa.Table, by: str) -> Iterator[tuple[Positions, Positions]]:
    """The rows whose value in a column is in a later row too, and the next such row of each."""
    columns = table.select([by])
    if _ascends(columns):
        return
    for piece in sorted_pieces(numbered(columns), [by, "row"]):
        at = _before_equals(piece.column(by))
        rows = piece.column("row").to_numpy()
        yield rows[at], rows[at + 1]


def _ascends(columns: pa.Table) -> bool:
    last = None
    for piece in pieces(columns):
        values = piece.column(0).combine_chunks()
        if not len(values):
            continue
        if (last is not None and not last < values[0].as_py()) or not _all(pc.less(values[:-1], values[1:])):
            return False
        last = values[-1].as_py()
    return True


def _all(values: pa.Array) -> bool:
    return bool(pc.all(values).as_py() in (True, None))


def _before_equals(values: pa.ChunkedArray) -> Positions:
    """Positions of the values that equal the next one."""
    array = values.combine_chunks()
    return np.flatnonzero(pc.equal(array[:-1], array[1:]).to_numpy(zero_copy_only=False)).astype(np.int64)
