"""Rows and configurations for the tests of transforms.milvus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.config import Collection
from schemas.layout import Layout, Space, VectorField, VectorKind
from schemas.milvus import CollectionSpec, MetadataColumn, VectorColumn
from transforms.milvus import Milvus

METADATA = {"author": "string", "year": "int", "weight": "float", "kept": "bool"}
ROWS = Layout((VectorField("vector", Space({}), 8),), METADATA).rows
SPEC = CollectionSpec(
    name="docs_1",
    alias="docs",
    space_id="space-one",
    snapshot_id="snapshot-one",
    vectors=(VectorColumn("vector", 8, "COSINE", "HNSW", {"M": 8, "efConstruction": 40}),),
    metadata=(
        MetadataColumn("author", "string", "nobody"),
        MetadataColumn("year", "int", 0),
        MetadataColumn("weight", "float", 1),
        MetadataColumn("kept", "bool", False),
    ),
)

OF_VECTOR = ("dimensions", "metric", "index_type", "index_parameters", "search_parameters")


def configuration(uri: str, **keys: Any) -> Collection:
    """A collection's section that gives up early."""
    return Collection(uri=uri, **{"retry_s": 20.0, **keys})


def spec_of(**keys: Any) -> CollectionSpec:
    """SPEC with some keys changed, of its vector too; index parameters go with the type."""
    if "index_type" in keys:
        keys.setdefault("index_parameters", {})
    of_vector = {key: keys.pop(key) for key in OF_VECTOR if key in keys}
    return replace(SPEC, vectors=(replace(SPEC.vectors[0], **of_vector),), **keys)


def unit_vectors(rows: int, dimensions: int = 8, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random vectors of length 1, float32[rows, dimensions]."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vector_column(vectors: Sequence[Any]) -> pa.Array:
    """Vectors, also of different lengths, as a part's column."""
    kind = VectorKind.DENSE.arrow_type
    return pa.array([np.asarray(v, dtype=np.float32) for v in vectors], pa.list_(pa.float32())).cast(kind)


def table_of(ids: Sequence[str], vectors: Any = None, **columns: Sequence[Any]) -> pa.Table:
    """Rows as a part has them; `columns` replace what would be made up."""
    rows = len(ids)
    vectors = unit_vectors(rows) if vectors is None else vectors
    data: dict[str, Any] = {
        "id": list(ids),
        "item_id": [row_id.rsplit("#", 1)[0] for row_id in ids],
        "chunk": [0] * rows,
        "text": [f"text of {row_id}" for row_id in ids],
        "start": [0] * rows,
        "end": [100] * rows,
        "content_hash": [f"hash-{row_id}"[:64] for row_id in ids],
        "vector": vector_column(vectors),
        "tokens": [7] * rows,
        "tokens_dropped": [0] * rows,
        "author": [f"author-{i % 3}" for i in range(rows)],
        "year": [2000 + i for i in range(rows)],
        "weight": [i / 2 for i in range(rows)],
        "kept": [i % 2 == 0 for i in range(rows)],
    }
    return pa.table({**data, **columns}, schema=ROWS)


def numbered(rows: int, start: int = 0, **keys: Any) -> pa.Table:
    """Rows doc-<start>#0 and on."""
    return table_of([f"doc-{i}#0" for i in range(start, start + rows)], **keys)


def sliced(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """A table in parts."""
    return (table.slice(at, rows) for at in range(0, table.num_rows, rows))


def all_rows(connection: Milvus, name: str) -> dict[str, dict[str, Any]]:
    """Every row of a small collection, by id."""
    rows = connection.client.query(
        name, filter='id != ""', output_fields=["*"], limit=16384, consistency_level="Strong"
    )
    return {row["id"]: dict(row) for row in rows}
