"""The collection behind the alias: what it should be under a configuration, what it is, and whether the two fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from schemas.config import AutoIndex, Config, IndexConfig
from schemas.config.encoder import VECTOR
from schemas.errors import NEW_VERSION, CollectionError, SpaceMismatchError
from schemas.layout import Layout, Space, VectorField, VectorKind
from schemas.milvus import VECTOR_TYPES, CollectionSpec, index_words
from schemas.milvus.collection_spec import PROPERTY_INDEX
from transforms import milvus


def served_layout(state: milvus.CollectionState) -> Layout:
    """The vectors of a collection, as it says itself what they are; without its metadata."""
    space = Space.from_json(state.space_json) if state.space_json else Space({})
    kinds = {name: VectorKind(kind) for kind, name in VECTOR_TYPES.items()}
    return Layout(tuple(VectorField(one.name, space, one.size, kinds[one.type], one.computed) for one in state.vectors))


def look(config: Config) -> milvus.CollectionState | None:
    """What is served when a run begins, or None.

    Raises:
        CollectionError: if Milvus can't be reached, or a collection has the name of the alias.
    """
    with milvus.connected(config.collection) as connection:
        if milvus.exists(connection, config.name):
            raise CollectionError(
                f"Milvus at {config.collection.uri} has a collection named {config.name!r}, and the alias of this "
                "configuration has the same name",
                "choose another name in the configuration, or rename that collection",
            )
        return find_served(connection, config)


def open_for_search(connection: milvus.Milvus, name: str) -> milvus.CollectionState | None:
    """Loads a collection into Milvus' memory, where it isn't: Milvus Lite forgets that with each process.

    Returns:
        What it was before.
    """
    state = milvus.state(connection, name)
    if state is not None and not state.loaded:
        connection.call(connection.client.load_collection, name)
    return state


def find_served(connection: milvus.Milvus, config: Config) -> milvus.CollectionState | None:
    """The collection behind the configuration's alias, or None if nothing is served."""
    name = milvus.served(connection, config.name)
    return milvus.state(connection, name) if name else None


def served_state(connection: milvus.Milvus, config: Config) -> milvus.CollectionState:
    """The collection behind the configuration's alias.

    Raises:
        CollectionError: if nothing is served under that name.
    """
    state = find_served(connection, config)
    if state is None:
        raise nothing_served(config)
    return state


def nothing_served(config: Config) -> CollectionError:
    """The error for an alias that does not exist."""
    return CollectionError(
        f"Milvus at {config.collection.uri} serves nothing under the alias {config.name!r}", "run vecbeam backfill"
    )


def check_space(state: milvus.CollectionState, config: Config, space: Space) -> None:
    """Refuses a collection of another space than the configuration's encoder.

    Raises:
        SpaceMismatchError: with both fingerprints and what differs between them.
        CollectionError: if vecbeam did not make the collection.
    """
    if state.space_id == space.id:
        if state.space_json and (drift := space.drift(Space.from_json(state.space_json))):
            raise SpaceMismatchError(f"the model has changed since {state.name} was built: {drift}", NEW_VERSION)
        return
    if state.space_id is None:
        raise CollectionError(
            f"the alias {config.name!r} at {config.collection.uri} points to {state.name}, "
            "which vecbeam did not create",
            "move the alias back with vecbeam rollback --to COLLECTION, or choose another name in the configuration",
        )
    differences = "; ".join(space.differences(Space.from_json(state.space_json))) if state.space_json else ""
    raise SpaceMismatchError(
        f"{config.name} serves {state.name} of space {state.space_id}, the configuration's encoder "
        f"{config.model_names} is of space {space.id}" + (f": {differences}" if differences else ""),
        "use the configuration that built it, or build another collection with vecbeam reindex",
    )


def chosen_index(state: milvus.CollectionState) -> dict[str, Any]:
    """The index that vecbeam chose for a collection, as its property says; empty where the configuration named it."""
    found: dict[str, Any] = json.loads(state.properties.get(PROPERTY_INDEX) or "{}")
    return found


def with_index(config: Config, state: milvus.CollectionState | None) -> Config:
    """The configuration with the index of a collection, where it says that vecbeam chooses one."""
    if not isinstance(config.collection.index, AutoIndex) or state is None or not (chosen := chosen_index(state)):
        return config
    return with_chosen(config, chosen)


def with_chosen(config: Config, chosen: Mapping[str, Any]) -> Config:
    """The configuration with an index that was chosen: type, parameters and search."""
    index = IndexConfig(type=chosen["type"], **chosen["parameters"])
    return config.model_copy(update={"collection": config.collection.with_chosen(index, dict(chosen["search"]))})


def misfits(state: milvus.CollectionState, spec: CollectionSpec) -> list[str]:
    """Differences between a collection and the configuration, except rows; one phrase each."""
    found = []
    if not milvus.has_columns(state, spec):
        found.append("metadata fields")
    if spec.promise is not None and chosen_index(state).get("promise") != spec.promise:
        found.append("index (auto, and the one there was not chosen for what is configured)")
    for one in spec.vectors:
        index = state.indexes.get(one.name)
        if index is None or not milvus.same_index(index, one):
            has = index_words(index.type, index.metric, index.parameters) if index else "none"
            wanted = index_words(one.index_type, one.metric, one.build_parameters)
            of = f" of {one.name}" if one.name != VECTOR else ""
            found.append(f"index{of} ({has}; configured is {wanted})")
    return found
