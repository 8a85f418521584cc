"""Upsert messages built from Arrow columns: no Python object per number, and none per row except for texts.

pymilvus packs rows one value at a time, which takes as long as the server's work. Here a message is put
together column by column, and the vectors' bytes are copied unchanged: protobuf's packed encoding of floats is their
little-endian memory (https://protobuf.dev/programming-guides/encoding/#packed).

The message goes out through `MilvusClient.upsert`, with all that pymilvus does around it. Its one private method that
turns rows into a message is wrapped on the client's connection; in a version without it, rows are sent as dicts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Vectors: TypeAlias = np.ndarray[Any, np.dtype[np.float32]] | pa.StructArray
_PREPARE = "_prepare_row_upsert_request"
_DATA_TAG = 0x0A  # field 1, length-delimited
# Milvus type -> the protobuf field of scalars that holds it.
_SCALARS = {"VARCHAR": "string_data", "INT64": "long_data", "DOUBLE": "double_data", "BOOL": "bool_data"}


class Rows(list[Any]):
    """Rows of a message, kept as columns; pymilvus sees a list of dicts.

    Args:
        table: columns of the collection except the vectors.
        vectors: of each vector column float32[n, dimensions], or an Arrow array of sparse vectors.
        types: Milvus type of each column.
        nullable: columns that the collection declares nullable.
    """

    def __init__(
        self,
        table: pa.Table,
        vectors: Mapping[str, Vectors],
        types: dict[str, str],
        nullable: frozenset[str],
    ) -> None:
        super().__init__()
        self._table = table
        self._vectors = vectors
        self._types = types
        self._nullable = nullable

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def request(self, collection: str, partition: str) -> Any:
        """The message as protobuf's UpsertRequest."""
        from pymilvus.grpc_gen import milvus_pb2

        request = milvus_pb2.UpsertRequest(
            collection_name=collection, partition_name=partition, num_rows=self._table.num_rows
        )
        for name in self._table.column_names:
            self._add_scalars(request.fields_data.add(), name)
        for name, vectors in self._vectors.items():
            add = _add_dense if isinstance(vectors, np.ndarray) else _add_sparse
            add(request.fields_data.add(), name, vectors)
        return request

    def _add_scalars(self, field: Any, name: str) -> None:
        from pymilvus import DataType

        column, kind = self._table.column(name), self._types[name]
        field.field_name, field.type = name, int(DataType[kind])
        if name in self._nullable:
            field.valid_data.extend(pc.is_valid(column).to_pylist())
            column = column.drop_null()
        # The kind of the values must be set also for a column without any value.
        data = getattr(field.scalars, _SCALARS[kind])
        data.SetInParent()
        data.data.extend(column.to_pylist())

    def dicts(self) -> list[dict[str, Any]]:
        """The rows in pymilvus' form."""
        rows: list[dict[str, Any]] = self._table.to_pylist()
        for name, vectors in self._vectors.items():
            column: Sequence[Any] = list(vectors) if isinstance(vectors, np.ndarray) else as_dicts(vectors)
            for row, vector in zip(rows, column, strict=True):
                row[name] = vector
        return rows


def _add_dense(field: Any, name: str, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    from pymilvus import DataType

    field.field_name, field.type = name, int(DataType.FLOAT_VECTOR)
    field.vectors.dim = vectors.shape[1]
    data = np.ascontiguousarray(vectors, dtype="<f4").tobytes()
    field.vectors.float_vector.MergeFromString(bytes([_DATA_TAG]) + _varint(len(data)) + data)


def _add_sparse(field: Any, name: str, vectors: pa.StructArray) -> None:
    from pymilvus import DataType

    field.field_name, field.type = name, int(DataType.SPARSE_FLOAT_VECTOR)
    indices, values = (vectors.field(at) for at in ("indices", "values"))
    pairs = np.empty(len(indices.flatten()), np.dtype([("index", "<u4"), ("value", "<f4")]))
    pairs["index"] = indices.flatten().to_numpy(zero_copy_only=False)
    pairs["value"] = values.flatten().to_numpy(zero_copy_only=False)
    borders = np.concatenate([[0], np.cumsum(indices.value_lengths().to_numpy())])
    # A position and its number after the other, as pymilvus packs them.
    field.vectors.sparse_float_vector.contents.extend(
        pairs[start:end].tobytes() for start, end in itertools.pairwise(borders)
    )
    dimensions = int(pairs["index"].max()) + 1 if len(pairs) else 1
    field.vectors.dim = field.vectors.sparse_float_vector.dim = dimensions


def as_dicts(vectors: pa.StructArray) -> list[dict[int, float]]:
    """Sparse vectors in pymilvus' form: a number by its position."""
    return [dict(zip(row["indices"], row["values"], strict=True)) for row in vectors.to_pylist()]


def as_data(client: MilvusClient, rows: Rows) -> list[Any]:
    """The argument of `client.upsert`: the rows as they are, if its channel supports them, or else as dicts."""
    handler = client._get_connection() if hasattr(client, "_get_connection") else None
    prepare = getattr(handler, _PREPARE, None)
    if prepare is None:
        return rows.dicts()
    if not getattr(prepare, "takes_columns", False):
        setattr(handler, _PREPARE, _wrapped(prepare))
    return rows


def _wrapped(prepare: Any) -> Any:
    def preparing(collection_name: str, rows: Any, partition_name: str | None = None, *args: Any, **keys: Any) -> Any:
        if isinstance(rows, Rows):
            return rows.request(collection_name, partition_name or "")
        return prepare(collection_name, rows, partition_name, *args, **keys)

    preparing.takes_columns = True  # type: ignore[attr-defined]
    return preparing


def _varint(number: int) -> bytes:
    """Protobuf's base 128 varint.

    >>> _varint(300).hex()
    'ac02'
    """
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
