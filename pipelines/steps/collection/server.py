"""Whether the configured server can do what the configuration needs, checked before anything is read."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from pipelines.steps.collection.vector_checks import check_limits
from schemas.config import AutoIndex, Collection, Config
from schemas.errors import CollectionError
from schemas.layout import Layout, VectorKind
from schemas.milvus import LITE
from schemas.milvus.capabilities import Server, analyzer_refusal, capabilities_of, refusals
from transforms import milvus
from transforms.load.specification import vector_column
from transforms.milvus.rows.zilliz_import import check_keys

CHOSEN = ("FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8")
"""Index types that vecbeam chooses among."""


def check_server(settings: Collection) -> None:
    """Refuses what the server can't do. An embedded Milvus Lite isn't opened: its package tells its version.

    Raises:
        CollectionError: with key, value, the server with its version, and the remedy; or if it can't be reached.
    """
    server = _server(settings)
    # An index that vecbeam chooses is of a type that the server has; FLAT is one that each has.
    kind = "FLAT" if isinstance(settings.index, AutoIndex) else settings.index.type
    found = refusals(server, index_type=kind, metric=settings.metric, load=settings.load) if server else []
    if server is not None and server.is_lite and (settings.writers or 1) > 1:
        found.append(
            (f"collection.writers: {settings.writers}: {server} takes one writer", "remove collection.writers")
        )
    if found:
        raise CollectionError(
            f"Milvus at {settings.uri} can't do what is configured: {'; '.join(what for what, _ in found)}",
            "; ".join(remedy for _, remedy in found),
        )


def check_vectors(config: Config, layout: Layout) -> None:
    """Refuses vectors that the server can't hold: of a kind that it does not know, or more than it takes.

    Raises:
        CollectionError: as `check_server` does.
        ConfigurationError, MissingExtraError: as `check_limits` does.
    """
    check_limits(config, layout)
    settings = config.collection
    if settings.zilliz is not None:
        check_keys(config.checkpoint)
    if [one.kind for one in layout.vectors] == [VectorKind.DENSE]:
        return  # every server holds one
    server = _server(settings)
    if server is None:
        return
    found: list[tuple[str, str]] = []
    most = capabilities_of(server).vectors
    held = [one for one in layout.vectors if one.in_collection]
    if len(held) > most:
        found.append((f"encoders: {server} holds {most} vectors per row, not {len(held)}", "name fewer encoders"))
    if len(held) < len(layout.vectors) and settings.load == "import":
        other = next(one.name for one in layout.vectors if not one.in_collection)
        found.append(
            (f"encoders.{other}: a server can't import parts with vectors of tokens", "set collection.load: upsert")
        )
    for field in held:
        column = vector_column(config, field)
        if column.computed and (refusal := analyzer_refusal(server, column.analyzer)):
            found.append((f"encoders.{field.name}.{refusal[0]}", refusal[1]))
            continue
        refused = refusals(server, index_type=column.index_type, metric=column.metric, vector_type=column.type)
        found += [(f"encoders.{field.name}: {what}", remedy) for what, remedy in refused]
        if column.kind == "sparse" and not column.computed and settings.load == "import":
            found.append((f"encoders.{field.name}: sparse vectors are not imported", "set collection.load: upsert"))
    if found:
        raise CollectionError(
            f"Milvus at {settings.uri} can't hold these rows: {'; '.join(what for what, _ in found)}",
            "; ".join(dict.fromkeys(remedy for _, remedy in found)),
        )


def _server(settings: Collection) -> Server | None:
    if settings.is_lite:
        try:
            return Server(LITE, version("milvus-lite"))
        except PackageNotFoundError:  # connecting says what to install
            return None
    with milvus.connected(settings) as connection:
        return connection.server


def index_types(settings: Collection) -> list[str]:
    """The types of index of a dense vector that the server has, of those that vecbeam chooses among."""
    server = _server(settings)
    found = [kind for kind in CHOSEN if not (server and refusals(server, index_type=kind, metric=settings.metric))]
    return found or ["FLAT"]
