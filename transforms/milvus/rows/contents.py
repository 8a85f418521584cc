"""Reads rows of a collection back by their ids, and finds the columns in which they differ from the checkpoint's.

Milvus Lite and servers return a float32 vector bit for bit, whatever its metric and index, so it is compared bit for
bit: a tolerance would let a changed vector pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CollectionError
from schemas.layout import VectorKind
from schemas.milvus import CollectionSpec
from schemas.row_columns import ARROW_TYPES
from transforms.milvus.call import MessageTooLargeError
from transforms.milvus.rows.read import read
from transforms.milvus.rows.upsert import quoted, row_bytes
from transforms.support.vectors import sparse_array

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

ID_BYTES = 4 << 20
"""Most bytes of ids in one query's filter."""

ANSWER_BYTES = 4 << 20
"""Most bytes of rows, by the checkpoint, in one query. Texts that were made longer in Milvus may exceed it: what Milvus
refuses as too large is queried in halves."""

ANSWER_ROWS = 8192
"""Most rows of one query; Milvus answers at most 16,384. A server needs 0.2 s for its consistency alone."""

Bits = np.ndarray[Any, np.dtype[np.bool_]]


def slices(part: pa.Table) -> Iterator[pa.Table]:
    """A table in slices, one per query."""
    ids = pc.binary_length(part.column("id")).to_numpy().astype(np.int64) + 3
    answers = row_bytes(part)
    start = 0
    while start < part.num_rows:
        end = start + ANSWER_ROWS
        for sizes, most in ((ids, ID_BYTES), (answers, ANSWER_BYTES)):
            fits = int(np.searchsorted(np.cumsum(sizes[start:end]), most, side="right"))
            end = min(end, start + max(1, fits))
        yield part.slice(start, end - start)
        start = end


def by_ids(ids: Sequence[str]) -> str:
    """The filter that asks for rows by their ids."""
    return f"id in [{','.join(map(quoted, ids))}]"


def read_back(connection: Milvus, name: str, ids: Sequence[str], columns: pa.Schema) -> pa.Table:
    """Columns of the rows that a collection has of some ids, in any order.

    Args:
        columns: the columns wanted, id among them, with their types.

    Raises:
        CollectionError: if Milvus doesn't answer.
    """
    try:
        answer = read(connection, connection.client.query, name, filter=by_ids(ids), output_fields=columns.names)
    except CollectionError as error:
        if len(ids) == 1 or not _too_large(error):
            raise
        middle = len(ids) // 2
        halves = (read_back(connection, name, some, columns) for some in (ids[:middle], ids[middle:]))
        return pa.concat_tables(halves)
    # `list.__iter__` leaves the vectors packed; pymilvus would make an object of each number.
    rows: list[dict[str, Any]] = list(list.__iter__(answer))
    arrays = [
        _vectors(answer, len(rows), field)
        if _is_vector(field.type)
        else pa.array([row[field.name] for row in rows], field.type)
        for field in columns
    ]
    return pa.table(arrays, schema=pa.schema([field.with_nullable(True) for field in columns]))


def _too_large(error: CollectionError) -> bool:
    # Servers also limit an answer by `quotaAndLimits.limits.maxOutputSize`, with another message.
    return isinstance(error, MessageTooLargeError) or "maxoutputsize" in error.message.lower()


def _is_vector(kind: pa.DataType) -> bool:
    return kind in (VectorKind.DENSE.arrow_type, VectorKind.SPARSE.arrow_type)


def _vectors(answer: Any, rows: int, field: pa.Field) -> pa.Array:
    """The vectors of an answer of pymilvus, as the column of a part."""
    name, kind = field.name, field.type
    if pa.types.is_struct(kind):
        return _sparse([answer[at][name] for at in range(rows)])
    for data in getattr(answer, "_lazy_field_data", ()):
        size = 4 * data.vectors.dim * rows
        packed = data.vectors.float_vector.SerializeToString() if data.field_name == name else b""
        # A repeated field of floats is their little-endian memory, behind a tag and its length.
        if size and len(data.valid_data) == 0 and len(packed) > size and len(packed) - size <= 11:
            flat = pa.array(np.frombuffer(packed, dtype="<f4", offset=len(packed) - size))
            offsets = np.arange(rows + 1, dtype=np.int32) * int(data.vectors.dim)
            return pa.ListArray.from_arrays(pa.array(offsets), flat).cast(kind)
    vectors = [answer[at][name] for at in range(rows)]
    made = [None if vector is None else np.asarray(vector, dtype=np.float32) for vector in vectors]
    return pa.array(made, pa.list_(pa.float32())).cast(kind)


def _sparse(vectors: list[dict[int, float] | None]) -> pa.Array:
    found = sparse_array((list(vector or ()), list((vector or {}).values())) for vector in vectors)
    missing = pa.array([vector is None for vector in vectors])
    return pa.StructArray.from_arrays(found.flatten(), fields=list(found.type), mask=missing)


def should_hold(spec: CollectionSpec, rows: pa.Table) -> pa.Table:
    """Rows of a part as a collection should hold them: with defaults for null metadata."""
    for column in spec.metadata:
        at = rows.schema.get_field_index(column.name)
        if at >= 0 and column.default is not None and rows.column(at).null_count:
            default = pa.scalar(column.default, ARROW_TYPES[column.type])
            rows = rows.set_column(at, rows.schema.field(at), pc.fill_null(rows.column(at), default))
    return rows


def differences(expected: pa.Table, found: pa.Table) -> dict[str, Bits]:
    """Which rows of two tables differ, by column; both have the same columns, and the same rows in the same order."""
    compared: dict[str, Bits] = {}
    for name in expected.column_names:
        if name != "id":
            mine, theirs = expected.column(name).combine_chunks(), found.column(name).combine_chunks()
            compared[name] = _compare(mine, theirs)
    return compared


def _compare(mine: pa.Array, theirs: pa.Array) -> Bits:
    if not _is_vector(mine.type):
        return _values_differ(mine, theirs)
    if not pa.types.is_struct(mine.type):
        return _vectors_differ(mine, theirs)
    differ: Bits = pc.is_null(mine).to_numpy(zero_copy_only=False) != pc.is_null(theirs).to_numpy(zero_copy_only=False)
    for at in ("indices", "values"):
        differ = differ | _vectors_differ(mine.field(at), theirs.field(at))
    return differ


def _values_differ(mine: pa.Array, theirs: pa.Array) -> Bits:
    same = pc.equal(mine, theirs)
    if pa.types.is_floating(mine.type):
        same = pc.or_(same, pc.and_(pc.is_nan(mine), pc.is_nan(theirs)))
    # Null where either is null: then both must be.
    same = pc.coalesce(same, pc.and_(pc.is_null(mine), pc.is_null(theirs)))
    differ: Bits = ~same.to_numpy(zero_copy_only=False)
    return differ


def _vectors_differ(mine: pa.Array, theirs: pa.Array) -> Bits:
    lengths = [pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False) for array in (mine, theirs)]
    differ: Bits = lengths[0] != lengths[1]
    if differ.any() or len(set(lengths[0].tolist())) > 1:
        # Rare, so it may be slow: vectors of several lengths, or none.
        pairs = zip(_bits(mine), _bits(theirs), strict=True)
        return np.fromiter((a != b for a, b in pairs), dtype=bool, count=len(mine))
    if len(mine) == 0 or lengths[0][0] <= 0:
        return differ
    return np.asarray((_words(mine) != _words(theirs)).reshape(len(mine), -1).any(axis=1))


def _words(vectors: pa.Array) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.ascontiguousarray(vectors.flatten().to_numpy(zero_copy_only=False)).view(np.uint32)


def _bits(vectors: pa.Array) -> list[bytes | None]:
    return [None if vector is None else np.asarray(vector, np.float64).tobytes() for vector in vectors.to_pylist()]
