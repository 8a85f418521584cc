"""Descriptions of a collection and of its alias, as Milvus reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.milvus import VECTOR_TYPES
from schemas.milvus.full_text import BM25_PARAMETERS
from transforms.milvus.call import not_found
from transforms.milvus.collection_state import CollectionField, CollectionState, IndexState

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus


def exists(connection: Milvus, name: str) -> bool:
    """Whether a collection of that name exists; an alias does not count."""
    # has_collection says yes to an alias, and no to everything where the database is missing.
    return name in connection.call(connection.client.list_collections)


def names(connection: Milvus) -> list[str]:
    """Names of all collections."""
    return sorted(str(name) for name in connection.call(connection.client.list_collections))


def aliases(connection: Milvus, name: str) -> list[str]:
    """The aliases that point to a collection."""
    return sorted(str(alias) for alias in connection.call(connection.client.list_aliases, name)["aliases"])


def served(connection: Milvus, alias: str) -> str | None:
    """The collection behind an alias, or None if there is no such alias."""
    name: str | None = connection.again("describe_alias", lambda: resolve(connection, alias))
    return name


def resolve(connection: Milvus, alias: str) -> str | None:
    """`served` in a single attempt, for functions that are retried as a whole."""
    from pymilvus.exceptions import MilvusException

    limit = connection.limit
    names = connection.client.list_collections(timeout=limit)
    if alias in names:
        return None
    try:
        # Resolves an alias on every server; describe_alias is younger, and its errors differ between versions.
        name = str(connection.client.describe_collection(alias, timeout=limit)["collection_name"])
    except MilvusException as error:
        if not_found(error):
            return None
        raise
    if name != alias:
        return name
    # A server may return the alias as the name: look from the other side.
    return next((n for n in names if alias in connection.client.list_aliases(n, timeout=limit)["aliases"]), None)


def described(connection: Milvus, alias: str) -> CollectionState | None:
    """The collection behind an alias with its columns and properties, in one call; None if there is no alias.

    Index and load state are left out (`state` has them): this is for checks before each search.
    """
    found: CollectionState | None = connection.again("describe_collection", lambda: _described(connection, alias))
    return found


def _described(connection: Milvus, alias: str) -> CollectionState | None:
    from pymilvus.exceptions import MilvusException

    try:
        answer = connection.client.describe_collection(alias, timeout=connection.limit)
    except MilvusException as error:
        if not_found(error):
            return None
        raise
    if answer["collection_name"] == alias:  # a collection of that name, or a server that does not resolve aliases
        name = resolve(connection, alias)
        return describe(connection, name) if name else None
    return CollectionState(str(answer["collection_name"]), _columns(answer), _properties(answer))


def space_of(connection: Milvus, alias_or_name: str) -> str | None:
    """The space id of a collection, or of the one behind an alias; None if there is neither, or it has none."""
    found = state(connection, served(connection, alias_or_name) or alias_or_name)
    return found.space_id if found else None


def state(connection: Milvus, name: str) -> CollectionState | None:
    """Description of a collection, or None if there is none of that name."""
    found: CollectionState | None = connection.again("describe_collection", lambda: describe(connection, name))
    return found


def describe(connection: Milvus, name: str) -> CollectionState | None:
    """`state` in a single attempt, for functions that are retried as a whole."""
    from pymilvus.client.types import LoadState

    limit = connection.limit
    if name not in connection.client.list_collections(timeout=limit):
        return None
    answer = connection.client.describe_collection(name, timeout=limit)
    load = connection.client.get_load_state(name, timeout=limit)
    return CollectionState(
        name=name,
        columns=_columns(answer),
        properties=_properties(answer),
        indexes=_indexes(connection, name, answer),
        loaded=load.get("state") == LoadState.Loaded,
    )


def _columns(answer: dict[str, Any]) -> tuple[CollectionField, ...]:
    return tuple(_column(field) for field in answer["fields"])


def _properties(answer: dict[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in answer.get("properties", {}).items()}


def _column(field: dict[str, Any]) -> CollectionField:
    parameters = field.get("params", {})
    size = int(parameters.get("max_length") or parameters.get("dim") or 0)
    return CollectionField(
        field["name"],
        field["type"].name,
        size,
        bool(field.get("nullable", False)),
        bool(field.get("is_function_output", False)),
    )


def _indexes(connection: Milvus, name: str, answer: dict[str, Any]) -> dict[str, IndexState]:
    vectors = [column.name for column in _columns(answer) if column.type in VECTOR_TYPES.values()]
    found = ((vector, _index(connection, name, vector)) for vector in vectors)
    return {vector: index for vector, index in found if index is not None}


def _index(connection: Milvus, name: str, vector: str) -> IndexState | None:
    limit = connection.limit
    for index_name in connection.client.list_indexes(name, field_name=vector, timeout=limit):
        described = connection.client.describe_index(name, index_name, timeout=limit)
        if described:
            return IndexState(
                type=str(described["index_type"]),
                metric=str(described["metric_type"]),
                parameters=_numbers(described),
                rows=int(described.get("total_rows", 0)),
                pending_rows=int(described.get("pending_index_rows", 0)),
                state=str(described.get("state", "")),
                reason=str(described.get("index_state_fail_reason", "") or ""),
            )
    return None


def _numbers(described: dict[str, Any]) -> dict[str, float]:
    """Build parameters from a description: Lite nests them under `params`, a server lists them flat and as text."""
    nested = described.get("params")
    flat = {**described, **(nested if isinstance(nested, dict) else {})}
    known = ("M", "efConstruction", "nlist", *BM25_PARAMETERS)
    return {key: float(flat[key]) if key in BM25_PARAMETERS else int(flat[key]) for key in known if key in flat}
