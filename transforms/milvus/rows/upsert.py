"""Upserts rows: in messages of limited size, checked before they are sent, acknowledged row for row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CollectionError
from schemas.milvus import CollectionSpec, VectorColumn
from schemas.row_columns import ARROW_TYPES
from transforms.milvus.call import MessageTooLargeError
from transforms.milvus.collection_state import CollectionField, sent_columns
from transforms.milvus.rows.message import Rows, Vectors, as_data
from transforms.support import metrics, stop
from transforms.support.vectors import not_finite

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

IN_FLIGHT = 4
"""Messages under way at a time to a server."""

ROW_OVERHEAD_BYTES = 16
"""Upper estimate of the bytes that protobuf adds to a row: tags and lengths of a dozen fields."""


def upsert(
    connection: Milvus,
    spec: CollectionSpec,
    rows: pa.Table,
    before: Callable[[int, int], None] | None = None,
) -> int:
    """Sends the rows of a table (the columns of a part) and returns how many rows Milvus acknowledged.

    Of several rows with one id only the last is sent, since a server keeps them all. A message holds at most
    `message_rows` rows and about `message_bytes` bytes; a larger row is a message of its own. One that the server
    refuses as too large is sent in halves, and the connection remembers the accepted size. A message whose
    answer was lost is sent again: it writes the same rows once more. A server gets several messages at a time;
    Lite gets one, as concurrent writers would only slow it down.

    Args:
        before: called before each message with the positions [start, end) of its rows; needs unique ids. Messages
            are then sent one after the other.

    Raises:
        CollectionError: if a vector has NaN, infinity or another length, a value doesn't fit its column, a null has
            no place, or Milvus doesn't take a message; what was acknowledged before is kept.
    """
    columns = sent_columns(spec)
    table = _last_of_each(rows.select([column.name for column in columns]))
    if table.num_rows == 0:
        return 0
    table = _fill(connection, spec, table)
    vectors = {one.name: vectors_of(table, one) for one in spec.sent_vectors}
    _check(spec, columns, table)
    sizes = row_bytes(table)
    sender = _Sender(connection, spec, table, vectors, sizes)
    spans = list(messages(sizes, connection.message_bytes, connection.settings.message_rows))
    if before is not None or len(spans) == 1 or connection.is_lite:
        for start, end in spans:
            if before is not None:
                before(start, end)
            sender.send(start, end)
    else:
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="upsert") as pool:
            for sent in [pool.submit(sender.send_aside, start, end) for start, end in spans]:
                for name, value in sent.result().items():
                    metrics.count(name, value)
    return int(table.num_rows)


class _Sender:
    """Sends spans of a table's rows as messages; several threads may."""

    def __init__(
        self,
        connection: Milvus,
        spec: CollectionSpec,
        table: pa.Table,
        vectors: dict[str, Vectors],
        sizes: np.ndarray[Any, np.dtype[np.int64]],
    ) -> None:
        self._connection, self._spec = connection, spec
        self._table = table.drop_columns(list(vectors))
        self._vectors = vectors
        self._sizes = sizes
        self._types = {column.name: column.type for column in sent_columns(spec)}
        # Read from the collection itself: servers before 2.5 silently accept `nullable` and forget it.
        self._nullable = frozenset(_nullable(connection, spec.name)) if spec.metadata else frozenset()

    def send_aside(self, start: int, end: int) -> Counter[str]:
        """As `send`, in a thread of its own; returns what it counted."""
        with metrics.set_aside() as counts:
            self.send(start, end)
        return counts

    def send(self, start: int, end: int) -> None:
        """Sends the rows from `start` to `end`."""
        stop.check()
        vectors = {name: one[start:end] for name, one in self._vectors.items()}
        rows = Rows(self._table.slice(start, end - start), vectors, self._types, self._nullable)
        try:
            client = self._connection.client
            answer = self._connection.call(client.upsert, self._spec.name, as_data(client, rows))
        except MessageTooLargeError:
            if end - start == 1:
                raise
            middle = (start + end) // 2
            size = int(self._sizes[start:middle].sum())
            self._connection.message_bytes = min(size, self._connection.message_bytes)
            self.send(start, middle)
            self.send(middle, end)
            return
        if answer["upsert_count"] != end - start:
            raise CollectionError(
                f"Milvus at {self._connection.settings.uri} acknowledged {answer['upsert_count']} of "
                f"{end - start} rows for {self._spec.name!r}",
                "run the same command again",
            )


def vectors_of(table: pa.Table, column: VectorColumn) -> Vectors:
    """The vectors of a column: dense ones as float32[n, dimensions], sparse ones as they are.

    Raises:
        CollectionError: if one is null or has another length, or a sparse one has no number, which Milvus refuses.
    """
    vectors = table.column(column.name).combine_chunks()
    if column.kind == "sparse":
        lengths = pc.fill_null(pc.list_value_length(vectors.field("indices")), 0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths == 0)
        said = "has no number at all, and Milvus takes no such sparse vector"
    else:
        lengths = pc.fill_null(pc.list_value_length(vectors), -1).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != column.dimensions)
        said = (
            f"has {max(int(lengths[wrong[0]]), 0) if len(wrong) else 0} dimensions, its space has {column.dimensions}"
        )
    if len(wrong):
        name = table.column("id")[int(wrong[0])].as_py() if "id" in table.column_names else int(wrong[0])
        raise CollectionError(
            f"the {column.name} of row {name!r} {said}",
            "the part is damaged: vecbeam reindex --full-refresh embeds everything again",
        )
    if column.kind == "sparse":
        return vectors
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, column.dimensions)


def row_bytes(table: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """About how many bytes each row takes in a message, int64[n]."""
    total = np.full(table.num_rows, ROW_OVERHEAD_BYTES, dtype=np.int64)
    for field in table.schema:
        column = table.column(field.name)
        if pa.types.is_string(field.type):
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64) + 3
        elif pa.types.is_list(field.type):
            total += 4 * pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        elif pa.types.is_struct(field.type):
            indices = pc.struct_field(column, "indices")
            total += 8 * pc.fill_null(pc.list_value_length(indices), 0).to_numpy().astype(np.int64)
        else:
            total += 10
    return total


def messages(sizes: np.ndarray[Any, np.dtype[np.int64]], most_bytes: int, most_rows: int) -> Iterator[tuple[int, int]]:
    """Splits rows of the given sizes into messages: yields (start, end) of each.

    >>> list(messages(np.array([5, 5, 5, 90, 5]), most_bytes=10, most_rows=100))
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    sums = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        fits = int(np.searchsorted(sums, sums[start] + most_bytes, side="right")) - 1
        end = max(start + 1, min(fits, start + most_rows, len(sizes)))
        yield start, end
        start = end


def _last_of_each(table: pa.Table) -> pa.Table:
    ids = table.column("id").to_pylist()
    last = {row_id: position for position, row_id in enumerate(ids)}
    return table if len(last) == len(ids) else table.take(pa.array(sorted(last.values()), pa.int64()))


def _fill(connection: Milvus, spec: CollectionSpec, table: pa.Table) -> pa.Table:
    """Replaces nulls by defaults, and refuses nulls that the collection can't hold."""
    for m in spec.metadata:
        at = table.schema.get_field_index(m.name)
        column = table.column(at)
        if column.null_count and m.default is not None:
            default = pa.scalar(m.default, ARROW_TYPES[m.type])
            table = table.set_column(at, table.schema.field(at), pc.fill_null(column, default))
    open_ends = [m.name for m in spec.metadata if table.column(m.name).null_count]
    if open_ends and (refused := [name for name in open_ends if name not in _nullable(connection, spec.name)]):
        name = refused[0]
        row = table.filter(pc.is_null(table.column(name))).column("id")[0].as_py()
        raise CollectionError(
            f"row {row!r} has no {name}, and {connection.server.version} at {connection.settings.uri} can't hold nulls",
            f"give corpus.metadata.{name}.default, or use Milvus 2.5 or newer",
        )
    return table


def _nullable(connection: Milvus, name: str) -> set[str]:
    described = connection.call(connection.client.describe_collection, name)
    return {field["name"] for field in described["fields"] if field.get("nullable")}


def _check(spec: CollectionSpec, columns: tuple[CollectionField, ...], table: pa.Table) -> None:
    for one in spec.sent_vectors:
        bad = np.flatnonzero(not_finite(table.column(one.name).combine_chunks()))
        if len(bad):
            names = [table.column("id")[int(i)].as_py() for i in bad[:3]]
            raise CollectionError(
                f"{len(bad)} vectors hold NaN or infinity, the first of row {', '.join(map(repr, names))}",
                "Milvus would serve them as nonsense; vecbeam reindex --full-refresh embeds everything again",
            )
    optional = {m.name for m in spec.metadata}
    for column in columns:
        values = table.column(column.name)
        if values.null_count and column.name not in optional:
            raise CollectionError(
                f"{values.null_count} rows have no {column.name}",
                "the part is damaged: vecbeam reindex --full-refresh embeds everything again",
            )
        # Lite counts characters and a server bytes: count bytes for both, so that a checkpoint fits either.
        if column.type == "VARCHAR":
            lengths = pc.fill_null(pc.binary_length(values), 0)
            longest = pc.max(lengths).as_py()
            if longest > column.size:
                row = table.column("id")[pc.index(lengths, longest).as_py()].as_py()
                raise CollectionError(
                    f"{column.name} of row {_short(row)} has {longest} bytes; the collection takes {column.size}",
                    "shorten it, or raise max_bytes of that column and run vecbeam reindex",
                )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


_CONTROL = re.compile(r'[\\"\n\r\t]')
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(value: str) -> str:
    r"""A string as a literal of a filter, for Lite's parser and for the server's.

    Only these five characters may be escaped: Lite knows no other escapes, and both take all others as they are.

    >>> print(quoted('say "hi"\n'))
    "say \"hi\"\n"
    """
    return '"' + _CONTROL.sub(lambda match: _ESCAPES[match[0]], value) + '"'
