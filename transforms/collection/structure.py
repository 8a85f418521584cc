"""The collection itself: what it is made of, what it says of itself, and the alias in front of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.collection import (
    PROPERTY_LOAD,
    PROPERTY_SNAPSHOT,
    PROPERTY_SPACE,
    PROPERTY_STATE,
    STATE_LOADING,
    STATE_READY,
    VARCHAR_MAX_BYTES,
    CollectionSpec,
)
from schemas.errors import CollectionError, SpaceMismatchError
from transforms.collection.calling import again, call, settings_of

if TYPE_CHECKING:
    from pymilvus import MilvusClient

VECTOR = "vector"
"""The vector's field, and the name of its index."""

HASH_MAX_BYTES = 128
_METADATA_TYPES = {"string": "VARCHAR", "int": "INT64", "float": "DOUBLE", "bool": "BOOL"}


@dataclass(frozen=True)
class Column:
    """A field of a collection; `size` is the most bytes of a VARCHAR, or the dimensions of a vector, or 0."""

    name: str
    type: str
    size: int = 0
    nullable: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.type}({self.size})" if self.size else f"{self.name} {self.type}"


@dataclass(frozen=True)
class IndexState:
    """An index on the vector; `parameters` are the build parameters that Milvus reports."""

    type: str
    metric: str
    parameters: dict[str, int]
    rows: int
    pending_rows: int
    state: str
    reason: str = ""

    @property
    def built(self) -> bool:
        return self.state == "Finished" and self.pending_rows == 0


@dataclass(frozen=True)
class CollectionState:
    """A collection as Milvus describes it. Ids and state are None where vecbeam did not make it."""

    name: str
    columns: tuple[Column, ...]
    properties: dict[str, str] = field(default_factory=dict)
    index: IndexState | None = None
    loaded: bool = False

    @property
    def dimensions(self) -> int:
        return next((column.size for column in self.columns if column.name == VECTOR), 0)

    @property
    def space_id(self) -> str | None:
        return self.properties.get(PROPERTY_SPACE)

    @property
    def snapshot_id(self) -> str | None:
        return self.properties.get(PROPERTY_SNAPSHOT)

    @property
    def load_id(self) -> str | None:
        return self.properties.get(PROPERTY_LOAD)

    @property
    def state(self) -> str | None:
        return self.properties.get(PROPERTY_STATE)

    @property
    def index_built(self) -> bool:
        return self.index is not None and self.index.built


def columns_of(spec: CollectionSpec) -> tuple[Column, ...]:
    """The fields of a collection, in order: the columns of a part."""
    return (
        Column("id", "VARCHAR", spec.id_max_bytes),
        Column("item_id", "VARCHAR", spec.id_max_bytes),
        Column("chunk", "INT64"),
        Column("text", "VARCHAR", VARCHAR_MAX_BYTES),
        Column("start", "INT64"),
        Column("end", "INT64"),
        Column("content_hash", "VARCHAR", HASH_MAX_BYTES),
        Column(VECTOR, "FLOAT_VECTOR", spec.dimensions),
        Column("tokens", "INT64"),
        Column("tokens_dropped", "INT64"),
        # Where there is a default, it fills the gaps while loading, on any server.
        *(
            Column(m.name, _METADATA_TYPES[m.type], m.max_bytes if m.type == "string" else 0, nullable=m.default is None)
            for m in spec.metadata
        ),
    )


def exists(client: MilvusClient, name: str) -> bool:
    """Whether there is a collection of that name; an alias is none."""
    # has_collection says yes to an alias, and no to everything where the database is missing.
    return name in call(settings_of(client), client.list_collections)


def served(client: MilvusClient, alias: str) -> str | None:
    """The collection behind an alias, or None where there is no such alias."""
    config = settings_of(client)
    name: str | None = again(config, "describe_alias", lambda: _behind(client, alias))
    return name


def _behind(client: MilvusClient, alias: str) -> str | None:
    from pymilvus.exceptions import DescribeCollectionException, MilvusException

    limit = _limit(client)
    try:
        # Resolves an alias on every server; describe_alias is younger, and its errors differ between versions.
        described = client.describe_collection(alias, timeout=limit)
    except (MilvusException, DescribeCollectionException) as error:
        if _not_found(error):
            return None
        raise
    name = str(described["collection_name"])
    if name != alias and alias in described.get("aliases", [alias]):
        return name
    found = [n for n in client.list_collections(timeout=limit) if n != alias]
    if alias in client.list_collections(timeout=limit):
        return None
    # Some servers answer with the name that was asked for: look it up from the other side.
    return next((n for n in found if alias in client.list_aliases(n, timeout=limit).get("aliases", [])), None)


def space_of(client: MilvusClient, alias_or_name: str) -> str | None:
    """The space id of a collection, or of the one behind an alias; None where there is neither, or it has none."""
    found = state(client, served(client, alias_or_name) or alias_or_name)
    return found.space_id if found else None


def state(client: MilvusClient, name: str) -> CollectionState | None:
    """What Milvus says of a collection, or None where there is none of that name."""
    config = settings_of(client)
    found: CollectionState | None = again(config, "describe_collection", lambda: _state(client, name))
    return found


def _state(client: MilvusClient, name: str) -> CollectionState | None:
    from pymilvus.client.types import LoadState

    limit = _limit(client)
    if name not in client.list_collections(timeout=limit):
        return None
    described = client.describe_collection(name, timeout=limit)
    load = client.get_load_state(name, timeout=limit)
    return CollectionState(
        name=name,
        columns=tuple(_column(field) for field in described["fields"]),
        properties={str(k): str(v) for k, v in described.get("properties", {}).items()},
        index=_index(client, name),
        loaded=load.get("state") == LoadState.Loaded,
    )


def _column(described: dict[str, Any]) -> Column:
    parameters = described.get("params", {})
    size = int(parameters.get("max_length") or parameters.get("dim") or 0)
    return Column(described["name"], described["type"].name, size, bool(described.get("nullable", False)))


def _index(client: MilvusClient, name: str) -> IndexState | None:
    limit = _limit(client)
    for index_name in client.list_indexes(name, field_name=VECTOR, timeout=limit):
        described = client.describe_index(name, index_name, timeout=limit)
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


def _numbers(described: dict[str, Any]) -> dict[str, int]:
    """Build parameters from a description: Lite nests them under `params`, a server lists them flat and as text."""
    nested = described.get("params")
    flat = {**described, **(nested if isinstance(nested, dict) else {})}
    known = ("M", "efConstruction", "nlist")
    return {key: int(flat[key]) for key in known if key in flat}


def check_free(client: MilvusClient, spec: CollectionSpec) -> None:
    """Refuses names that are taken by something else.

    Raises:
        SpaceMismatchError: where the collection exists and holds another space.
        CollectionError: where a collection stands under the alias' name, an alias under the collection's, or the
            collection exists with other fields or dimensions.
    """
    where = f"Milvus at {settings_of(client).uri}"
    if exists(client, spec.alias):
        raise CollectionError(
            f"{where} has a collection named {spec.alias!r}, and the alias of this configuration has the same name",
            "choose another name in the configuration, or rename or drop that collection",
        )
    found = state(client, spec.name)
    if found is None:
        if (other := served(client, spec.name)) is not None:
            raise CollectionError(
                f"{where} has an alias {spec.name!r} (of {other!r}) where the new collection should stand",
                "drop that alias, or choose another name in the configuration",
            )
        return
    if found.space_id is None:
        raise CollectionError(
            f"{where} has a collection {spec.name!r} that vecbeam did not make",
            "rename or drop it, or choose another name in the configuration",
        )
    if found.space_id != spec.space_id:
        raise SpaceMismatchError(
            f"collection {spec.name!r} of {where} holds space {found.space_id}, the configuration's is {spec.space_id}",
            "vectors of two spaces can't be compared: build another collection with vecbeam reindex",
        )
    _check_columns(found, spec, where)


def _check_columns(found: CollectionState, spec: CollectionSpec, where: str) -> None:
    # Whether a field may be null depends on the server as well, so it is left out.
    has = {str(column) for column in found.columns}
    wants = {str(column) for column in columns_of(spec)}
    if has != wants:
        raise CollectionError(
            f"collection {spec.name!r} of {where} has other fields than the configuration: it has "
            f"{', '.join(sorted(has - wants)) or 'no others'}, and should have {', '.join(sorted(wants - has)) or 'fewer'}",
            "build another collection with vecbeam reindex, or restore the configuration",
        )


def create(client: MilvusClient, spec: CollectionSpec, load_id: str) -> None:
    """Makes the empty collection, without an index, in state "loading".

    Where it is there already from an attempt whose answer was lost (same load id), it stays as it is.

    Raises:
        CollectionError: where a collection of that name is there.
    """
    again(settings_of(client), "create_collection", lambda: _create(client, spec, load_id))


def _create(client: MilvusClient, spec: CollectionSpec, load_id: str) -> None:
    from pymilvus import DataType

    if (found := _state(client, spec.name)) is not None:
        if found.load_id == load_id and found.space_id == spec.space_id:
            return
        raise CollectionError(
            f"Milvus at {settings_of(client).uri} has a collection {spec.name!r} already", "drop it, or continue its load"
        )
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for column in columns_of(spec):
        options: dict[str, Any] = {"is_primary": True} if column.name == "id" else {}
        if column.nullable:
            options["nullable"] = True  # servers before 2.5 ignore it without a word; `state` tells
        if column.type == "VARCHAR":
            options["max_length"] = column.size
        if column.type == "FLOAT_VECTOR":
            options["dim"] = column.size
        schema.add_field(column.name, DataType[column.type], **options)
    client.create_collection(
        spec.name,
        schema=schema,
        consistency_level="Strong",
        properties={
            PROPERTY_SPACE: spec.space_id,
            PROPERTY_SNAPSHOT: spec.snapshot_id,
            PROPERTY_LOAD: load_id,
            PROPERTY_STATE: STATE_LOADING,
        },
        timeout=_limit(client),
    )


def set_properties(client: MilvusClient, name: str, properties: dict[str, str]) -> None:
    """Changes properties of a collection; the others stay."""
    call(settings_of(client), client.alter_collection_properties, name, properties)


def set_ready(client: MilvusClient, name: str) -> None:
    """Notes in the collection that it is whole."""
    set_properties(client, name, {PROPERTY_STATE: STATE_READY})


def publish(client: MilvusClient, alias: str, name: str) -> bool:
    """Points the alias to a collection, in one step; returns whether that changed anything."""
    moved: bool = again(settings_of(client), "alter_alias", lambda: _publish(client, alias, name))
    return moved


def _publish(client: MilvusClient, alias: str, name: str) -> bool:
    current, limit = _behind(client, alias), _limit(client)
    if current == name:
        return False
    if current is None:
        client.create_alias(name, alias, timeout=limit)
    else:
        client.alter_alias(name, alias, timeout=limit)
    return True


def drop(client: MilvusClient, name: str) -> None:
    """Drops a collection; one that is gone already is no error."""
    config = settings_of(client)
    if exists(client, name):
        call(config, client.drop_collection, name)


def _limit(client: MilvusClient) -> float:
    from transforms.collection.calling import OneAttempt

    return OneAttempt(settings_of(client).timeout_s)


def _not_found(error: BaseException) -> bool:
    from transforms.collection.calling import code_of, words

    text = words(error).lower()
    return code_of(error) == 100 or "can't find collection" in text or "not exist" in text or "not found" in text
