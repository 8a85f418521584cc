"""The models and connections of searches, which stay open between them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pipelines.steps.search.queries.query_encoder import QueryEncoder
from pipelines.steps.search.queries.query_model import query_model, vector_named
from schemas.config import Collection, Config
from schemas.errors import CollectionError, ConfigurationError
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


class OpenSearches:
    """The open searches of a configuration, one for each vector; the first search of a vector opens it.

    Several threads may use it at once.

    Args:
        release: see `Searcher`.
    """

    def __init__(self, config: Config, *, release: bool) -> None:
        self._config = config
        self._release = release
        self._changing = threading.RLock()
        self._opened: dict[str, OpenSearch] = {}

    @property
    def config(self) -> Config:
        """The configuration of searches that begin now."""
        return self._config

    def configure(self, config: Config) -> bool:
        """Searches with another configuration from now on; returns whether what is open still fits, else closes it."""
        with self._changing:
            before, self._config = self._config, config
            kept = ("vectors", "collection", "checkpoint", "name")
            fits = all(getattr(before, key) == getattr(config, key) for key in kept)
            if not fits:
                self.close()
            return fits

    def enter(self, vector: str) -> tuple[Config, OpenSearch]:
        """Begins a search of a vector, the first one for ""; returns the configuration of this search, too.

        Raises:
            ConfigurationError: if rows have no vector of that name.
            CollectionError: if Milvus does not answer.
        """
        with self._changing:
            name = vector_named(self._config, vector)
            if name not in self._opened:
                self._opened[name] = open_search(self._config, name, release=self._release)
            return self._config, self._opened[name].enter()

    def read(self, opened: OpenSearch, function: Callable[[OpenSearch], T]) -> T:
        """Reads from the collection, once more where connection or collection have gone."""
        try:
            return function(opened)
        except CollectionError as error:
            gone = milvus.connection_gone(error)
            if not gone and not milvus.collection_gone(error):
                raise
        # The connection is lost, or the alias has just moved away from a collection that was dropped.
        again = self._enter_again(opened) if gone else opened.enter()
        try:
            return function(again)
        finally:
            again.leave()

    def forget(self, opened: OpenSearch) -> None:
        """Finds the model again at the next search."""
        with self._changing:
            self._opened = {name: one for name, one in self._opened.items() if one is not opened}
        opened.retire()

    def close(self) -> None:
        """Frees models and connections, as soon as searches of other threads have ended."""
        with self._changing:
            opened, self._opened = self._opened, {}
        for one in opened.values():
            one.retire()

    def _enter_again(self, gone: OpenSearch) -> OpenSearch:
        """Another connection instead of one that has gone; one that another thread has opened will do."""
        with self._changing:
            name = gone.models.field.name
            current = self._opened.get(name)
            if current is not None and current is not gone:
                return current.enter()
            gone.retire()
            connection = milvus.connect(gone.collection, create=False)
            opened = OpenSearch(gone.collection, connection, gone.models, release=self._release).enter()
            if current is gone:
                self._opened[name] = opened
            else:
                opened.retire()  # `close` was called meanwhile: it is for this search alone
            return opened


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
