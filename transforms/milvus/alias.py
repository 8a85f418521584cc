"""The alias: what it points to, for reports, and the chain of collections that it pointed to before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, InterruptedRunError, LockedError
from schemas.milvus import PROPERTY_PREVIOUS
from schemas.run_report import Served
from transforms import milvus

log = logging.getLogger("vecbeam")

LIMIT_S = 2.0
"""Seconds for each call: a report must not keep a failed run waiting."""


def served_now(config: Config, error: BaseException | None = None) -> Served | None:
    """What is served now, or None if that can't be known.

    Args:
        error: what ended the run; if it says that Milvus does not answer, no second call is made.
    """
    settings = config.collection
    # Errors of Milvus itself have a cause, vecbeam's refusals have none.
    not_there = isinstance(error, CollectionError) and error.__cause__ is not None
    # A run that must stop has no time to ask.
    if not_there or isinstance(error, (ConfigurationError, LockedError, InterruptedRunError)):
        return None
    # Opening a Lite file that does not exist would create it.
    if settings.is_lite and not Path(settings.uri).exists():
        return Served()
    try:
        with milvus.connected(settings.model_copy(update={"timeout_s": LIMIT_S, "retry_s": 0.0})) as connection:
            return Served(collection=milvus.served(connection, config.name) or "")
    except Exception as unknown:
        log.info("can't tell what %s serves: %s", config.name, unknown)
        return None


def link(connection: milvus.Milvus, name: str, served: str | None) -> None:
    """Makes the served collection the previous one of another, to which the alias is about to move.

    The chain of collections stays whole: if `name` was further down in it, the one above it gets the one below.

    Args:
        name: where the alias moves.
        served: what it points to now.
    """
    found = milvus.state(connection, name)
    if found is None or not served or served == name:
        return
    above = next((state.name for state in chain(connection, served) if state.previous == name), None)
    milvus.set_properties(connection, name, {PROPERTY_PREVIOUS: served})
    if above is not None:
        milvus.set_properties(connection, above, {PROPERTY_PREVIOUS: found.previous or ""})


def chain(connection: milvus.Milvus, name: str | None) -> Iterator[milvus.CollectionState]:
    """A collection and the earlier ones in its chain, newest first."""
    seen: set[str] = set()
    while name and name not in seen and (found := milvus.state(connection, name)) is not None:
        seen.add(name)
        yield found
        name = found.previous
