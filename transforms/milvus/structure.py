"""Creates, names, publishes and drops collections. Each step may be repeated after its answer was lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import CollectionError, SpaceMismatchError
from schemas.milvus import (
    PROPERTY_ALIAS,
    PROPERTY_LOAD,
    PROPERTY_PREVIOUS,
    PROPERTY_SNAPSHOT,
    PROPERTY_SPACE,
    PROPERTY_SPACE_JSON,
    PROPERTY_STATE,
    STATE_LOADING,
    STATE_READY,
    VECTOR_TYPES,
    CollectionSpec,
)
from schemas.milvus.full_text import TEXT_COLUMN, analyzer_parameters
from transforms.milvus.call import passes, words
from transforms.milvus.collection_state import CollectionState, columns_of
from transforms.milvus.description import describe, exists, resolve, served, state
from transforms.milvus.lite import remove_unfinished

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus


def check_free(connection: Milvus, spec: CollectionSpec) -> None:
    """Refuses names that something else has.

    Raises:
        SpaceMismatchError: if the collection exists and holds another space.
        CollectionError: if a collection has the alias' name, an alias has the collection's, or the
            collection exists with other fields or dimensions.
    """
    where = f"Milvus at {connection.settings.uri}"
    if exists(connection, spec.alias):
        raise CollectionError(
            f"{where} has a collection named {spec.alias!r}, and the alias of this configuration has the same name",
            "choose another name in the configuration, or rename that collection",
        )
    found = state(connection, spec.name)
    if found is None:
        if (other := served(connection, spec.name)) is not None:
            raise CollectionError(
                f"{where} has an alias {spec.name!r} (of {other!r}) with the name of the new collection",
                "choose another name in the configuration, or remove that alias: its users then find nothing",
            )
        return
    if found.space_id is None:
        raise CollectionError(
            f"{where} has a collection {spec.name!r} that vecbeam did not create",
            "rename it, or choose another name in the configuration",
        )
    if found.space_id != spec.space_id:
        raise SpaceMismatchError(
            f"collection {spec.name!r} of {where} holds space {found.space_id}, the configuration's is {spec.space_id}",
            "vectors of two spaces can't be compared: build another collection with vecbeam reindex",
        )
    _check_columns(found, spec, where)


def has_columns(found: CollectionState, spec: CollectionSpec) -> bool:
    """Whether a collection has the fields of a configuration."""
    # Whether a field may be null also depends on the server, so it is left out.
    return {str(column) for column in found.columns} == {str(column) for column in columns_of(spec)}


def _check_columns(found: CollectionState, spec: CollectionSpec, where: str) -> None:
    if not has_columns(found, spec):
        has = {str(column) for column in found.columns}
        wants = {str(column) for column in columns_of(spec)}
        raise CollectionError(
            f"collection {spec.name!r} of {where} has other fields than the configuration: it has "
            f"{', '.join(sorted(has - wants)) or 'no others'}, and should have "
            f"{', '.join(sorted(wants - has)) or 'no others'}",
            "build another collection with vecbeam reindex, or restore the configuration",
        )


def create(connection: Milvus, spec: CollectionSpec, load_id: str) -> None:
    """Creates the empty collection, without an index, in state "loading".

    One that exists from an attempt whose answer was lost (same load id) stays as it is.

    Raises:
        CollectionError: if a collection of that name exists.
    """
    connection.again("create_collection", lambda: _create(connection, spec, load_id))


def _create(connection: Milvus, spec: CollectionSpec, load_id: str) -> None:
    from pymilvus import DataType, Function, FunctionType

    if (found := describe(connection, spec.name)) is not None:
        if found.load_id == load_id and found.space_id == spec.space_id:
            return
        raise CollectionError(
            f"Milvus at {connection.settings.uri} has a collection {spec.name!r} already",
            "run the command again that began to load it",
        )
    if connection.settings.is_lite:
        remove_unfinished(Path(connection.settings.uri), connection.settings.database or "", spec.name)
    schema = connection.client.create_schema(auto_id=False, enable_dynamic_field=False)
    of_words = [one for one in spec.vectors if one.computed]
    for column in columns_of(spec):
        options: dict[str, Any] = {"is_primary": True} if column.name == "id" else {}
        if column.nullable:
            options["nullable"] = True  # servers before 2.5 silently ignore it; `state` tells
        if column.type == "VARCHAR":
            options["max_length"] = column.size
        if column.type == VECTOR_TYPES["dense"]:
            options["dim"] = column.size
        if column.name == TEXT_COLUMN and of_words:
            options |= {"enable_analyzer": True, "analyzer_params": analyzer_parameters(of_words[0].analyzer)}
        schema.add_field(column.name, DataType[column.type], **options)
    for one in of_words:
        schema.add_function(Function(one.name, FunctionType.BM25, [TEXT_COLUMN], [one.name]))
    connection.client.create_collection(
        spec.name,
        schema=schema,
        consistency_level="Strong",
        properties={
            PROPERTY_ALIAS: spec.alias,
            PROPERTY_SPACE: spec.space_id,
            PROPERTY_SPACE_JSON: spec.space,
            PROPERTY_SNAPSHOT: spec.snapshot_id,
            PROPERTY_LOAD: load_id,
            PROPERTY_STATE: STATE_LOADING,
        },
        timeout=connection.limit,
    )


def set_properties(connection: Milvus, name: str, properties: dict[str, str]) -> None:
    """Changes properties of a collection; the others stay."""
    connection.call(connection.client.alter_collection_properties, name, properties)


def set_ready(connection: Milvus, name: str, previous: str = "") -> None:
    """Records in the collection that it is whole, and which one was served before it."""
    set_properties(connection, name, {PROPERTY_STATE: STATE_READY, PROPERTY_PREVIOUS: previous})


def publish(connection: Milvus, alias: str, name: str) -> bool:
    """Points the alias to a collection, in one step; returns whether that changed anything."""
    moved: bool = connection.again("alter_alias", lambda: _publish(connection, alias, name))
    return moved


def _publish(connection: Milvus, alias: str, name: str) -> bool:
    from pymilvus.exceptions import MilvusException

    current, limit = resolve(connection, alias), connection.limit
    if name not in connection.client.list_collections(timeout=limit):
        raise CollectionError(f"Milvus at {connection.settings.uri} has no collection {name!r} to publish as {alias!r}")
    if current == name:
        return False
    if current is None:
        try:
            connection.client.create_alias(name, alias, timeout=limit)
        except MilvusException as error:
            # The alias of a dropped collection dangles: it has no collection, and blocks its name.
            if not re.search(r"exist|already", words(error)) or passes(error):
                raise
            connection.client.alter_alias(name, alias, timeout=limit)
    else:
        connection.client.alter_alias(name, alias, timeout=limit)
    return True


def drop(connection: Milvus, name: str) -> None:
    """Drops a collection, if it exists.

    Raises:
        CollectionError: if an alias points to it.
    """
    if not exists(connection, name):
        return
    if aliases := connection.call(connection.client.list_aliases, name)["aliases"]:
        raise CollectionError(
            f"collection {name!r} is what alias {', '.join(aliases)!r} serves",
            "move the alias to another collection first",
        )
    connection.call(connection.client.drop_collection, name)
