"""Which items a collection holds, of some."""

from __future__ import annotations

from pathlib import Path

from schemas.config import Config
from transforms import milvus

IDS_AT_ONCE = 500
"""Ids of one query to Milvus."""


def items_served(config: Config, ids: set[str]) -> list[str]:
    """Those of some ids that items of the collection have."""
    if not ids or (config.collection.is_lite and not Path(config.collection.uri).exists()):
        return []
    found: set[str] = set()
    with milvus.connected(config.collection, create=False) as connection:
        state = milvus.described(connection, config.name)
        names = sorted(ids) if state is not None else []
        for start in range(0, len(names), IDS_AT_ONCE):
            some = ",".join(map(milvus.quoted, names[start : start + IDS_AT_ONCE]))
            rows = milvus.query(connection, config.name, f"item_id in [{some}]", ["item_id"])
            found.update(row["item_id"] for row in rows)
    return sorted(found)
