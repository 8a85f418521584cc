"""What a comparison compares: configurations, collections by name, or what is served and the one before or after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipelines.run.jobs.beam_options import prepare_filesystems
from pipelines.steps.collection.rollback_target import collection_named, rollback_target
from pipelines.steps.collection.served import served_state
from pipelines.steps.quality.collection_rows import open_collection
from pipelines.steps.quality.configured_rows import AMONG_OTHERS, open_rows
from pipelines.steps.quality.ranked import Ranked
from schemas.config import Config
from schemas.errors import ConfigurationError
from transforms import milvus
from transforms.milvus.alias import chain
from transforms.quality.judged_queries import LoggedQuery

WORDS = "OLD and NEW"


class ComparedSide(Protocol):
    """One side of a comparison."""

    @property
    def basis(self) -> dict[str, str]:
        """Which rows these are."""
        ...

    def ranked(self, queries: Sequence[LoggedQuery]) -> Ranked:
        """The items of each query, best first."""
        ...


def sides(
    old: Config | str, new: Config | str, configs: Sequence[Config], vector: str = ""
) -> tuple[ComparedSide, ComparedSide]:
    """Both sides of a comparison.

    Args:
        old, new: configurations; names of collections; or "" for what `named` chooses.
        configs: whose Milvus has the collections (the first one's), and whose encoders made them.

    Raises:
        ConfigurationError: for a collection without a configuration, or a vector that is not dense.
        CheckpointError: if a configuration has no snapshot of its space, or it has no row.
        CollectionError: if there is no such collection, or nothing is served.
        GateError: if what `rollback` goes to was never finished.
        SpaceMismatchError: if no configuration's encoder made the vectors of a collection.
    """
    if isinstance(old, Config) and isinstance(new, Config):
        return _of_configuration(old, vector), _of_configuration(new, vector)
    # A configuration on one side may be the one that made the collection on the other.
    configs = [*configs, *(one for one in (old, new) if isinstance(one, Config))]
    if not configs:
        raise ConfigurationError("a collection is named without a configuration", "add -c vecbeam.yaml")
    prepare_filesystems(configs[0])
    with milvus.connected(configs[0].collection, create=False) as connection:
        states = named(connection, configs[0], *(None if isinstance(one, Config) else one for one in (old, new)))
    first, second = (
        _of_configuration(one, vector) if isinstance(one, Config) else open_collection(state, configs, vector)
        for one, state in zip((old, new), states, strict=True)
    )
    return first, second


def named(
    connection: milvus.Milvus, config: Config, old: str | None, new: str | None
) -> tuple[milvus.CollectionState, milvus.CollectionState]:
    """Two collections of a configuration's alias.

    Args:
        old, new: names; "" for one that is not named; None for a side that is a configuration. Of two that are not
            named, the old one is what `rollback` goes to, the new one is served. Of one that is not named, the other
            one is served; the named one is the old one if it was served before.

    Raises:
        CollectionError: if there is no such collection, or nothing is served.
        GateError: if what `rollback` goes to was never finished.
    """
    served = served_state(connection, config)
    if old is None or new is None:
        name = old or new
        other = _of_name(connection, config, name) if name else served
        return other, other
    if old and new:
        return _of_name(connection, config, old), _of_name(connection, config, new)
    if not (name := old or new):
        return rollback_target(connection, config, option=WORDS), served
    other = _of_name(connection, config, name)
    if other.name == served.name:
        raise ConfigurationError(f"{name} is what is served: it is compared with itself", "name another collection")
    earlier = {one.name for one in chain(connection, served.name)}
    return (other, served) if other.name in earlier else (served, other)


def _of_name(connection: milvus.Milvus, config: Config, name: str) -> milvus.CollectionState:
    # The alias is a name too: of what is served.
    return collection_named(connection, config, milvus.served(connection, name) or name, WORDS)


def _of_configuration(config: Config, vector: str) -> ComparedSide:
    return open_rows(config, [vector] if vector else [], remedy=AMONG_OTHERS)
