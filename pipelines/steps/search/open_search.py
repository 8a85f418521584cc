"""The model and the connection of searches, which stay open between them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pipelines.steps.search.queries.query_encoder import QueryEncoder
from pipelines.steps.search.queries.query_model import query_model
from schemas.config import Collection, Config
from schemas.errors import ConfigurationError
from transforms import milvus
from transforms.support import process
from transforms.support.arrow_import import import_arrow

T = TypeVar("T")


class OpenSearch:
    """Model and connection of searches. It closes when it is retired and its last search has ended."""

    def __init__(
        self, collection: Collection, connection: milvus.Milvus, models: QueryEncoder, *, release: bool
    ) -> None:
        self.collection = collection
        self.connection = connection
        self.models = models
        self.metrics: dict[str, str] = {}
        self._release = release
        self._changing = threading.Lock()
        self._users = 0
        self._retired = False

    def enter(self) -> OpenSearch:
        """Begins a search."""
        with self._changing:
            self._users += 1
        return self

    def leave(self) -> None:
        """Ends a search."""
        with self._changing:
            self._users -= 1
        self._close_unused()

    def retire(self) -> None:
        """Closes the connection, now or when its last search has ended."""
        with self._changing:
            self._retired = True
        self._close_unused()

    def _close_unused(self) -> None:
        with self._changing:
            if not self._retired or self._users:
                return
            self._retired = False
        self.connection.close()
        if self._release:
            milvus.release(self.collection, unused=True)


def open_search(config: Config, vector: str, *, release: bool) -> OpenSearch:
    """Finds and loads the model while pymilvus and Milvus Lite start: each takes a good part of a second."""
    milvus.check_exists(config.collection)
    if process.is_own():
        import_arrow()
    connected: Future[milvus.Milvus] = Future()
    loading = _in_thread(lambda: _load(config, vector, connected))
    # Lite answers at once or not at all: there is nothing to wait for but a server that this process can start.
    collection = config.collection.model_copy(update={"retry_s": 0.0} if config.collection.is_lite else {})
    try:
        connection = milvus.connect(collection, create=False)
        connected.set_result(connection)
    except BaseException as error:
        connected.set_exception(error)
        # It waits: a process must not end in the middle of a native library's start. A wrong configuration goes first.
        if isinstance(wrong := loading.exception(), ConfigurationError):
            raise wrong from None
        raise
    try:
        return OpenSearch(collection, connection, loading.result(), release=release)
    except BaseException:
        connection.close()
        raise


def _load(config: Config, vector: str, connected: Future[milvus.Milvus]) -> QueryEncoder:
    models = {name: query_model(config, name, connected) for name in config.vectors}
    return QueryEncoder.of(config, models, vector)


def _in_thread(function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="model", daemon=True).start()
    return future
