"""The collection behind the alias: what it should be under a configuration, what it is, and whether the two fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.config import Config
from schemas.config.encoder import VECTOR
from schemas.errors import CollectionError, SpaceMismatchError
from schemas.identity import digest
from schemas.layout import Layout, Space, VectorField
from schemas.milvus import CollectionSpec, MetadataColumn, index_words
from transforms import milvus

if TYPE_CHECKING:
    from transforms.checkpoint import Snapshot


def collection_spec(config: Config, snapshot: Snapshot | None, layout: Layout) -> CollectionSpec:
    """The collection that a snapshot becomes under a configuration; its name follows from both.

    Args:
        snapshot: None where only fields and index are asked for.
    """
    snapshot_id = snapshot.id if snapshot else ""
    metadata = tuple(
        MetadataColumn(name, field.type, field.default, field.max_bytes)
        for name, field in config.corpus.metadata.items()
    )
    settings = config.collection
    identity = [
        snapshot_id,
        layout.vectors[0].dimensions,
        settings.metric,
        settings.index.type,
        settings.index.parameters,
        settings.id_max_bytes,
        [(column.name, column.type, column.default, column.max_bytes) for column in metadata],
    ]
    return CollectionSpec(
        name=f"{config.name}_{layout.space.id[:8]}_{digest(identity, 8)}",
        alias=config.name,
        space_id=layout.space.id,
        snapshot_id=snapshot_id,
        dimensions=layout.vectors[0].dimensions,
        metric=settings.metric,
        index_type=settings.index.type,
        index_parameters=settings.index.parameters,
        search_parameters=dict(settings.search),
        metadata=metadata,
        id_max_bytes=settings.id_max_bytes,
        space=layout.space.as_json(),
    )


def served_layout(state: milvus.CollectionState) -> Layout:
    """The vectors of a collection, as it says itself what they are; without its metadata."""
    space = Space.from_json(state.space_json) if state.space_json else Space({})
    return Layout((VectorField(VECTOR, space, state.dimensions),))


def look(config: Config) -> milvus.CollectionState | None:
    """What is served when a run begins, or None.

    Raises:
        CollectionError: where Milvus can't be reached, or a collection has the name of the alias.
    """
    with milvus.connected(config.collection) as client:
        if milvus.exists(client, config.name):
            raise CollectionError(
                f"Milvus at {config.collection.uri} has a collection named {config.name!r}, and the alias of this "
                "configuration has the same name",
                "choose another name in the configuration, or rename that collection",
            )
        return find_served(client, config)


def open_for_search(client: Any, config: Config, name: str) -> milvus.CollectionState | None:
    """Loads a collection into Milvus' memory, where it isn't: Milvus Lite forgets that with each process.

    Returns:
        What it was before.
    """
    state = milvus.state(client, name)
    if state is not None and not state.loaded:
        milvus.call(config.collection, client.load_collection, name)
    return state


def find_served(client: Any, config: Config) -> milvus.CollectionState | None:
    """The collection behind the configuration's alias, or None where nothing is served."""
    name = milvus.served(client, config.name)
    return milvus.state(client, name) if name else None


def served_state(client: Any, config: Config) -> milvus.CollectionState:
    """The collection behind the configuration's alias.

    Raises:
        CollectionError: where nothing is served under that name.
    """
    state = find_served(client, config)
    if state is None:
        raise nothing_served(config)
    return state


def nothing_served(config: Config) -> CollectionError:
    """What to say where the alias leads nowhere."""
    return CollectionError(
        f"Milvus at {config.collection.uri} serves nothing under the alias {config.name!r}", "run vecbeam backfill"
    )


def check_space(state: milvus.CollectionState, config: Config, space: Space) -> None:
    """Refuses a collection of another space than the configuration's encoder.

    Raises:
        SpaceMismatchError: with both fingerprints and what differs between them.
        CollectionError: where vecbeam did not make the collection.
    """
    if state.space_id == space.id:
        return
    if state.space_id is None:
        raise CollectionError(
            f"the alias {config.name!r} at {config.collection.uri} leads to {state.name}, which vecbeam did not make",
            "move the alias back with vecbeam rollback --to COLLECTION, or choose another name in the configuration",
        )
    differences = "; ".join(space.differences(Space.from_json(state.space_json))) if state.space_json else ""
    raise SpaceMismatchError(
        f"{config.name} serves {state.name} of space {state.space_id}, the configuration's encoder "
        f"{config.model_names} is of space {space.id}" + (f": {differences}" if differences else ""),
        "use the configuration that built it, or build another collection beside it with vecbeam reindex",
    )


def misfits(state: milvus.CollectionState, spec: CollectionSpec) -> list[str]:
    """What differs between a collection and what the configuration asks for, but its rows; a phrase each."""
    found = []
    if not milvus.has_columns(state, spec):
        found.append("metadata fields")
    if state.index is None or not milvus.same_index(state.index, spec):
        has = index_words(state.index.type, state.index.metric, state.index.parameters) if state.index else "none"
        wanted = index_words(spec.index_type, spec.metric, spec.build_parameters)
        found.append(f"index ({has}; configured is {wanted})")
    return found
