"""Descriptions of a collection and of its alias, as Milvus reports them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from schemas.layout import amount_fields, identity_fields
from schemas.milvus import (
    PROPERTY_ALIAS,
    PROPERTY_LOAD,
    PROPERTY_PREVIOUS,
    PROPERTY_SNAPSHOT,
    PROPERTY_SPACE,
    PROPERTY_SPACE_JSON,
    PROPERTY_STATE,
    PROPERTY_TARGET,
    VARCHAR_MAX_BYTES,
    VECTOR_TYPES,
    CollectionSpec,
)
from schemas.milvus.full_text import BM25_PARAMETERS
from transforms.milvus.call import not_found

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

HASH_MAX_BYTES = 128
_PLAIN_TYPES = {pa.string(): "VARCHAR", pa.int64(): "INT64", pa.float64(): "DOUBLE"}
_METADATA_TYPES = {"string": "VARCHAR", "int": "INT64", "float": "DOUBLE", "bool": "BOOL"}


@dataclass(frozen=True)
class CollectionField:
    """A field of a collection.

    Attributes:
        size: the most bytes of a VARCHAR, or the dimensions of a vector, or 0.
        computed: whether Milvus computes its values.
    """

    name: str
    type: str
    size: int = 0
    nullable: bool = False
    computed: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.type}({self.size})" if self.size else f"{self.name} {self.type}"


@dataclass(frozen=True)
class IndexState:
    """An index on the vector; `parameters` are the build parameters that Milvus reports."""

    type: str
    metric: str
    parameters: dict[str, float]
    rows: int
    pending_rows: int
    state: str
    reason: str = ""

    @property
    def built(self) -> bool:
        return self.state == "Finished" and self.pending_rows == 0


@dataclass(frozen=True)
class CollectionState:
    """A collection as Milvus describes it. Ids and state are None if vecbeam did not make it."""

    name: str
    columns: tuple[CollectionField, ...]
    properties: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, IndexState] = field(default_factory=dict)
    """Indexes by the vector's name."""
    loaded: bool = False

    @property
    def vectors(self) -> tuple[CollectionField, ...]:
        """The vector fields, in order."""
        return tuple(column for column in self.columns if column.type in VECTOR_TYPES.values())

    @property
    def space_id(self) -> str | None:
        return self.properties.get(PROPERTY_SPACE)

    @property
    def snapshot_id(self) -> str | None:
        return self.properties.get(PROPERTY_SNAPSHOT)

    @property
    def space_json(self) -> str:
        return self.properties.get(PROPERTY_SPACE_JSON, "")

    @property
    def target_id(self) -> str | None:
        """The snapshot of an update that was begun and has not ended."""
        target = self.properties.get(PROPERTY_TARGET)
        return target if target and target != self.snapshot_id else None

    @property
    def previous(self) -> str | None:
        return self.properties.get(PROPERTY_PREVIOUS) or None

    @property
    def alias(self) -> str | None:
        return self.properties.get(PROPERTY_ALIAS)

    @property
    def load_id(self) -> str | None:
        return self.properties.get(PROPERTY_LOAD)

    @property
    def state(self) -> str | None:
        return self.properties.get(PROPERTY_STATE)

    @property
    def index_built(self) -> bool:
        """Whether each vector has an index over all rows."""
        return all(one.name in self.indexes and self.indexes[one.name].built for one in self.vectors)


def sent_columns(spec: CollectionSpec) -> tuple[CollectionField, ...]:
    """The fields whose values vecbeam sends, or a bulk import reads from a part."""
    return tuple(column for column in columns_of(spec) if not column.computed)


def columns_of(spec: CollectionSpec) -> tuple[CollectionField, ...]:
    """The fields of a collection, in the order of the columns of a part."""
    sizes = {"id": spec.id_max_bytes, "item_id": spec.id_max_bytes, "content_hash": HASH_MAX_BYTES}

    def plain(field: pa.Field) -> CollectionField:
        kind = _PLAIN_TYPES[field.type]
        return CollectionField(field.name, kind, sizes.get(field.name, VARCHAR_MAX_BYTES) if kind == "VARCHAR" else 0)

    return (
        *map(plain, identity_fields(spec.modality)),
        *(
            CollectionField(one.name, one.type, one.dimensions if one.kind == "dense" else 0, computed=one.computed)
            for one in spec.vectors
        ),
        *map(plain, amount_fields(spec.modality)),
        # A default replaces nulls during the load, on any server.
        *(
            CollectionField(
                m.name, _METADATA_TYPES[m.type], m.max_bytes if m.type == "string" else 0, nullable=m.default is None
            )
            for m in spec.metadata
        ),
    )


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
