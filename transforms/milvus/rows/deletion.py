"""Deleting rows by id, in calls of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from transforms.milvus.rows.upsert import quoted

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

IDS = 2000
"""Most ids of a call."""

ID_BYTES = 1 << 20
"""Most bytes of ids in a call's filter."""


def delete(connection: Milvus, name: str, ids: Sequence[str]) -> None:
    """Deletes rows of a collection by id; ignores ids that do not exist, so it may be repeated.

    Raises:
        CollectionError: if Milvus refuses it; what was deleted before stays deleted.
    """
    for some in _slices(ids):
        connection.call(connection.client.delete, name, filter=f"id in [{','.join(map(quoted, some))}]")


def _slices(ids: Sequence[str]) -> Iterator[list[str]]:
    some: list[str] = []
    size = 0
    for row_id in ids:
        some.append(row_id)
        size += len(row_id.encode())
        if len(some) == IDS or size >= ID_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
