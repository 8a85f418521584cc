"""Reading from a collection that may not be in memory: after a restart a server needs a while to load it again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from schemas.errors import CollectionError
from transforms.milvus.call import LONG_S, code_of
from transforms.milvus.description import served

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

_NOT_LOADED = 101
_MOVED = re.compile(r"delegator .* not found", re.IGNORECASE)
"""A server's answer just after a release: its proxy still asks where the collection was."""


def load(connection: Milvus, name: str) -> None:
    """Loads a collection (or the one behind an alias) into memory and waits for it; does nothing if it is loaded."""
    connection.call(connection.client.load_collection, served(connection, name) or name, timeout=LONG_S)


def read(connection: Milvus, function: Callable[..., Any], name: str, **keys: Any) -> Any:
    """Queries or searches a collection with Strong consistency, and loads it first where it isn't.

    Raises:
        CollectionError: as `call` does.
    """
    keys["consistency_level"] = "Strong"
    try:
        return connection.call(function, name, **keys)
    except CollectionError as error:
        if not (_MOVED.search(error.message) or _code(error) == _NOT_LOADED):
            raise
    load(connection, name)
    return connection.call(function, name, **keys)


def query(connection: Milvus, name: str, filter: str, output_fields: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a collection (or of the one behind an alias) that match a filter, with some of their columns."""
    rows = read(connection, connection.client.query, name, filter=filter, output_fields=list(output_fields))
    return [dict(row) for row in rows]


def _code(error: CollectionError) -> int | str:
    return code_of(error.__cause__) if error.__cause__ else 0
