"""Names of parts: digests of everything that determines their rows."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa

from schemas.layout import ON_THE_WAY
from schemas.row_columns import HASHED


def batch_digest(chunks: pa.Table, space_id: str, schema_version: int, salt: str = "") -> str:
    """Digest that names a batch's part: of its space and all columns of its rows except vectors, 16 hex digits.

    Args:
        chunks: a table of `schemas.layout.chunk_schema`.
        salt: distinguishes parts whose rows were embedded again on purpose.
    """
    hasher = hashlib.sha256(f"{schema_version} {space_id}{salt}".encode())
    hasher.update(b"".join(chunks.column("@digest").to_pylist()))
    for name in chunks.column_names:
        if name in ON_THE_WAY:  # where an item was found, now or before, does not change its rows
            continue
        hasher.update(f"|{name}:{chunks.schema.field(name).type}|".encode())
        if name in HASHED:
            continue
        values = json.dumps(chunks.column(name).to_pylist(), ensure_ascii=True, separators=(",", ":"))
        hasher.update(values.encode())
    return hasher.hexdigest()[:16]
