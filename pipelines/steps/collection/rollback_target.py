"""The collection that a rollback goes to, and any other of the same alias by its name."""

from __future__ import annotations

from pipelines.steps.collection.served import find_served
from schemas.config import Config
from schemas.errors import CollectionError, GateError
from schemas.milvus import STATE_READY
from transforms import milvus


def rollback_target(
    connection: milvus.Milvus, config: Config, to: str | None = None, option: str = "--to"
) -> milvus.CollectionState:
    """The finished collection before the served one, or a named one.

    Args:
        option: the word of the command line that names one.

    Raises:
        CollectionError: if there is none before it; see also `collection_named`.
        GateError: if it was never finished.
    """
    served = find_served(connection, config)
    name = to or (served.previous if served else None)
    if name is None:
        shown = f"{served.name} is the first collection" if served else "nothing is served"
        raise CollectionError(
            f"Milvus at {config.collection.uri}: {shown} under the alias {config.name!r}, there is none before it",
            f"name a collection with {option}; vecbeam gc, without --yes, lists the existing ones",
        )
    state = collection_named(connection, config, name, option)
    if not is_finished(state):
        raise GateError(
            f"{name} was never finished",
            f"run the command and configuration that began it again, or name another collection with {option}",
        )
    return state


def collection_named(connection: milvus.Milvus, config: Config, name: str, option: str) -> milvus.CollectionState:
    """A collection that vecbeam made for the configuration's alias.

    Raises:
        CollectionError: if there is none, or vecbeam did not make it for this alias.
    """
    where = f"Milvus at {config.collection.uri}"
    state = milvus.state(connection, name)
    if state is None:
        raise CollectionError(
            f"{where} has no collection {name!r}",
            "vecbeam gc lists the existing collections; to build that one again, run vecbeam reindex with the "
            "configuration that built it",
        )
    if state.space_id is None or state.alias != config.name:
        raise CollectionError(
            f"{where}: vecbeam did not create {name!r} for {config.name!r}", f"name another collection with {option}"
        )
    return state


def is_finished(state: milvus.CollectionState) -> bool:
    """Whether a collection holds one whole snapshot."""
    return state.state == STATE_READY and not state.target_id
