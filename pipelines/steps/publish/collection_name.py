"""The name of the collection that a publication makes: a free one, or that of a collection which it resumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipelines.steps.collection.served import find_served, misfits
from schemas.config import Config
from schemas.errors import CollectionError
from schemas.milvus import STATE_LOADING, STATE_READY, CollectionSpec
from transforms import milvus


def named(connection: milvus.Milvus, config: Config, spec: CollectionSpec) -> CollectionSpec:
    """The collection that is served, if it is what is wanted; else one whose name is free or that was begun.

    Raises:
        CollectionError: if no name is free.
    """
    served = find_served(connection, config)
    if served is not None and served.state == STATE_READY and served.target_id is None:
        same = (served.space_id, served.snapshot_id) == (spec.space_id, spec.snapshot_id)
        if same and not misfits(served, spec):
            return replace(spec, name=served.name)
    for name in _names(spec):
        found = milvus.state(connection, name)
        # One of that name may have been brought to another snapshot since.
        if found is None or found.space_id is None or found.snapshot_id == spec.snapshot_id:
            return replace(spec, name=name)
    raise _too_many(spec)


def beside(connection: milvus.Milvus, spec: CollectionSpec) -> CollectionSpec:
    """A collection whose name is free, or one of the same rows that was begun and never finished.

    Raises:
        CollectionError: if no name is free.
    """
    for name in _names(spec):
        found = milvus.state(connection, name)
        if found is None:
            return replace(spec, name=name)
        same = (found.space_id, found.snapshot_id) == (spec.space_id, spec.snapshot_id)
        if same and found.state == STATE_LOADING and milvus.has_columns(found, spec):
            return replace(spec, name=name)
    raise _too_many(spec)


def _names(spec: CollectionSpec) -> Iterator[str]:
    return (spec.name if turn == 1 else f"{spec.name}_{turn}" for turn in range(1, 1000))


def _too_many(spec: CollectionSpec) -> CollectionError:
    return CollectionError(f"Milvus has a thousand collections named {spec.name}", "remove some with vecbeam gc")
