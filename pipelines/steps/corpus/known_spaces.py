"""The spaces of the rows that a configuration has already: they name the fitted models that made these rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schemas.config import Config
from schemas.layout import Space
from transforms import milvus
from transforms.checkpoint import spaces_of


def known_spaces(config: Config, connection: milvus.Milvus | None = None) -> Iterator[Space]:
    """The space of what is served, then those of the snapshots, that of the newest first.

    What is served comes first: after a refit whose collection did not pass the gate, or a rollback, searchers and
    `sync` still use the model that made what is served.

    Args:
        connection: to Milvus; by default one is opened, where there is a Milvus.

    Raises:
        CollectionError: if the server does not answer.
    """
    collection = config.collection
    if connection is not None:
        yield from _served(config, connection)
    elif not collection.is_lite or Path(collection.uri).exists():  # opening a Lite file would create it
        with milvus.connected(collection) as opened:
            found = list(_served(config, opened))
        yield from found
    yield from spaces_of(config)


def _served(config: Config, connection: milvus.Milvus) -> Iterator[Space]:
    state = milvus.described(connection, config.name)
    if state is not None and state.space_json:
        yield Space.from_json(state.space_json)
