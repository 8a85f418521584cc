"""Searches of the served collection, with model and connection kept open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import pyarrow as pa

from pipelines.steps.collection.checked_queries import MOST_ROWS, check_queries, check_rows, check_texts
from pipelines.steps.collection.found import Found, columns
from pipelines.steps.collection.importance import similarities_of
from pipelines.steps.collection.query import Query
from pipelines.steps.collection.query_encoder import QueryEncoder
from pipelines.steps.collection.query_model import query_model, query_settings, vector_for, vector_named
from pipelines.steps.collection.rank_fusion import DEPTH, METRIC, fused
from pipelines.steps.collection.reranking import CANDIDATES, Reranker, Stages, stages
from pipelines.steps.collection.reranking import METRIC as MAX_SIMILARITY
from pipelines.steps.collection.served import check_space, nothing_served, open_for_search
from pipelines.steps.collection.word_arithmetic import Arithmetic, LeftOut, without
from schemas.config import Collection, Config
from schemas.errors import CheckpointError, CollectionError, ConfigurationError, SpaceMismatchError
from schemas.layout import VectorKind
from schemas.milvus.full_text import TEXT_COLUMN
from transforms import milvus
from transforms.encoders import Model, resolve
from transforms.load.specification import vector_column
from transforms.milvus.rows.contents import by_ids, read_back
from transforms.milvus.rows.read import query as query_rows

T = TypeVar("T")


class _Opened:
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

    def enter(self) -> _Opened:
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


class Searcher:
    """A search that stays open: it keeps model and connection, so that only the first search pays for the start-up.

    Several threads may use it at once. It looks up the alias before each search, with one call to Milvus, so that it
    follows the alias to another collection; and it connects again where the connection has gone (a server that
    restarted, Milvus Lite that was released). `close` frees everything; the next search opens it again.

    Args:
        release: stops the embedded Milvus Lite at `close`, if nothing else in this process uses it, so that another
            process can open it.
    """

    def __init__(self, config: Config, *, release: bool = False) -> None:
        self._config = config
        self._release = release
        self._changing = threading.RLock()
        self._opened: dict[str, _Opened] = {}
        self._reranker: Reranker | None = None
        self._kinds: dict[str, VectorKind] | None = None

    def configure(self, config: Config) -> None:
        """Searches with another configuration from now on; what is open stays open where it still fits."""
        with self._changing:
            before, self._config = self._config, config
            kept = ("vectors", "collection", "checkpoint", "name")
            if any(getattr(before, key) != getattr(config, key) for key in kept):
                self.close()

    def search(
        self,
        queries: Sequence[Query],
        k: int = 10,
        *,
        filter_expression: str = "",
        vector: str | Sequence[str] = "",
        plus: str | Sequence[str] = (),
        minus: str | Sequence[str] = (),
        rerank: str = "",
        candidates: int | None = None,
    ) -> Found:
        """The `k` rows nearest to each query. They are embedded together and searched in one call to Milvus.

        Args:
            queries: texts, media files, or rows.
            vector: which vector of the rows is searched, if they have several; for "" the first one, or the first that
                describes what the queries are, texts or media. Of several names each is searched, and their hits are
                fused by rank: see `rank_fusion`.
            plus, minus: texts whose vectors are added to each query's, and subtracted; see `Arithmetic`.
            rerank: a vector of tokens, by which the rows found are ranked again; see `reranking`. Its name in `vector`
                means the same.
            candidates: rows that the search finds for it, 100 by default, at least `k`.

        Raises:
            ConfigurationError: if a query is blank or no text, or has no word that the model knows, `k` is out of
                range, the filter is not understood, vectors are added that are not dense, or `rerank` names another
                vector.
            CollectionError: if nothing is published, or Milvus does not answer.
            CheckpointError: if the parts do not have what is ranked by.
            SpaceMismatchError: if the collection holds vectors of another space than the configuration's encoder.
        """
        check_queries(queries, k)
        names, late = self._stages(vector or vector_for(self._config, queries), rerank, candidates)
        if late:
            if plus or minus:
                raise ConfigurationError(
                    f"the vector {late} ranks rows by their tokens, and no vector is added to those",
                    "leave --plus and --minus out, or --rerank",
                )
            return self._reranked(queries, k, filter_expression, names, late, max(k, candidates or CANDIDATES))
        if len(names) > 1:
            return self._search_each(queries, k, filter_expression, names, plus, minus)
        arithmetic = Arithmetic.of(plus, minus)
        check_texts(arithmetic.plus, "plus")
        check_texts(arithmetic.minus, "minus")
        for attempt in range(2):
            config, opened = self._enter(names[0])
            try:
                return self._search_once(config, opened, queries, k, filter_expression, arithmetic)
            except SpaceMismatchError:
                # The alias may have moved to a collection of the same model, fitted again.
                if attempt or not opened.models.is_fitted:
                    raise
                self._forget(opened)
            finally:
                opened.leave()
        raise AssertionError("the second attempt returns or raises")

    def rows(self, ids: Sequence[str], names: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Columns of rows by their ids, in any order; ids that the collection does not have are left out.

        Args:
            names: of columns, in addition to `id`; by default those of a hit.

        Raises:
            CollectionError: if nothing is published, or Milvus does not answer.
        """
        config, opened = self._enter("")
        try:
            if (served := milvus.served(opened.connection, config.name)) is None:
                raise nothing_served(config)
            wanted = ["id", *(names or (*columns(config), *config.corpus.metadata))]
            return query_rows(opened.connection, served, by_ids(ids), [*dict.fromkeys(wanted)])
        finally:
            opened.leave()

    def _search_once(
        self,
        config: Config,
        opened: _Opened,
        queries: Sequence[Query],
        k: int,
        filter_expression: str,
        arithmetic: Arithmetic,
    ) -> Found:
        left_out = [arithmetic.left_out(query) for query in queries]
        vectors = opened.models.embed(queries, arithmetic, lambda ids: _stored(config, opened, ids))
        try:
            return _search(config, opened, vectors, k, filter_expression, left_out)
        except CollectionError as error:
            gone = milvus.connection_gone(error)
            if not gone and not milvus.collection_gone(error):
                raise
        # The connection is lost, or the alias has just moved away from a collection that was dropped.
        again = self._enter_again(opened) if gone else opened.enter()
        try:
            return _search(config, again, vectors, k, filter_expression, left_out)
        finally:
            again.leave()

    def _forget(self, opened: _Opened) -> None:
        """Finds the model again at the next search."""
        with self._changing:
            self._opened = {name: one for name, one in self._opened.items() if one is not opened}
        opened.retire()

    def _search_each(
        self,
        queries: Sequence[Query],
        k: int,
        filter_expression: str,
        names: Sequence[str],
        plus: str | Sequence[str],
        minus: str | Sequence[str],
    ) -> Found:
        """The hits of several vectors, fused by rank."""
        found = [
            self.search(
                queries, max(k, DEPTH), filter_expression=filter_expression, vector=name, plus=plus, minus=minus
            ).hits
            for name in names
        ]
        return Found(METRIC, [fused(lists, k) for lists in zip(*found, strict=True)])

    def _stages(self, vector: str | Sequence[str], rerank: str, candidates: int | None) -> Stages:
        """The vectors that are searched, and the one by which the hits are ranked again."""
        names = [name for name in dict.fromkeys([vector] if isinstance(vector, str) else vector) if name]
        for name in [*names, rerank]:
            vector_named(self._config, name)
        with self._changing:
            if len(self._config.vectors) == 1 and not rerank:
                found = Stages(names or [""], "")
            else:
                if self._kinds is None:
                    self._kinds = {
                        name: resolve(query_settings(self._config, name)).kind for name in self._config.vectors
                    }
                found = stages(self._kinds, names, rerank)
        if candidates is not None:
            check_rows("candidates", candidates)
            if not found.late:
                raise ConfigurationError(
                    f"candidates is {candidates}, and nothing is ranked again", "name a vector of tokens with --rerank"
                )
        return found

    def _reranked(
        self, queries: Sequence[Query], k: int, filter_expression: str, names: Sequence[str], late: str, depth: int
    ) -> Found:
        """The hits of a search, ranked again."""
        with self._changing:
            if self._reranker is None or self._reranker.name != late:
                models = {name: query_model(self._config, name) for name in self._config.vectors}
                self._reranker = Reranker(self._config, QueryEncoder.of(self._config, models, late))
            reranker = self._reranker
        for last in (False, True):
            hits = self.search(queries, depth, filter_expression=filter_expression, vector=names).hits
            config, opened = self._enter(names[0])
            try:
                state = milvus.described(opened.connection, config.name)
            finally:
                opened.leave()
            if state is None:
                raise nothing_served(config)
            try:
                return Found(MAX_SIMILARITY, reranker.rank(queries, hits, k, state))
            except CheckpointError:
                if last:  # else the alias may have moved since the search
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Frees model and connection, as soon as searches of other threads have ended."""
        with self._changing:
            opened, self._opened = self._opened, {}
            self._reranker = self._kinds = None
        for one in opened.values():
            one.retire()

    def model(self) -> Model:
        """The model of the queries."""
        return query_model(self._config)

    def _enter(self, vector: str) -> tuple[Config, _Opened]:
        with self._changing:
            name = vector_named(self._config, vector)
            if name not in self._opened:
                self._opened[name] = _open(self._config, name, release=self._release)
            return self._config, self._opened[name].enter()

    def _enter_again(self, gone: _Opened) -> _Opened:
        """Another connection instead of one that has gone; one that another thread has opened will do."""
        with self._changing:
            name = gone.models.field.name
            current = self._opened.get(name)
            if current is not None and current is not gone:
                return current.enter()
            gone.retire()
            connection = milvus.connect(gone.collection, create=False)
            opened = _Opened(gone.collection, connection, gone.models, release=self._release).enter()
            if current is gone:
                self._opened[name] = opened
            else:
                opened.retire()  # `close` was called meanwhile: it is for this search alone
            return opened


def _search(
    config: Config, opened: _Opened, vectors: Any, k: int, filter_expression: str, left_out: Sequence[LeftOut]
) -> Found:
    column = vector_column(config, opened.models.field)
    connection = opened.connection
    state = milvus.described(connection, config.name)
    if state is None:
        raise nothing_served(config)
    check_space(state, config, opened.models.layout.space)
    if state.name not in opened.metrics:
        loaded = open_for_search(connection, state.name)
        index = loaded.indexes.get(opened.models.field.name) if loaded is not None else None
        opened.metrics[state.name] = index.metric if index is not None else column.metric
    wanted = [*columns(config), *config.corpus.metadata]
    there = {column.name for column in state.columns}

    def nearest(rows: int) -> list[list[milvus.Hit]]:
        return milvus.search_each(
            connection,
            state.name,
            vectors,
            rows,
            filter_expression,
            [name for name in wanted if name in there],
            column.search_parameters,
            column.index_type,
            column.name,
        )

    found = without(left_out, k, MOST_ROWS, nearest) if any(map(any, left_out)) else nearest(k)
    rows = [[_row(hit, wanted) for hit in hits] for hits in found]
    return Found(opened.metrics[state.name], rows, similarities_of(state.properties, column.name))


def _open(config: Config, vector: str, *, release: bool) -> _Opened:
    """Finds and loads the model while pymilvus and Milvus Lite start: each takes a good part of a second."""
    milvus.check_exists(config.collection)
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
        return _Opened(collection, connection, loading.result(), release=release)
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


def _row(hit: milvus.Hit, wanted: Sequence[str]) -> dict[str, Any]:
    # The score counts, also in a collection with a metadata column of that name.
    score = {"score": round(hit.score, 6)}
    return score | {name: hit.fields.get(name) for name in wanted} | score


def _stored(config: Config, opened: _Opened, ids: Sequence[str]) -> pa.Array:
    """Vectors of rows of the served collection, in the order of their ids; texts where Milvus computes the vectors.

    Raises:
        ConfigurationError: if there is no row of an id.
    """
    field = opened.models.field
    kind = pa.string() if field.computed else field.kind.arrow_type
    column = TEXT_COLUMN if field.computed else field.name
    columns = pa.schema([("id", pa.string()), (column, kind)])
    if (name := milvus.served(opened.connection, config.name)) is None:
        raise nothing_served(config)
    rows = read_back(opened.connection, name, [*dict.fromkeys(ids)], columns)
    places = {row_id: at for at, row_id in enumerate(rows.column("id").to_pylist())}
    for row_id in ids:
        if row_id not in places:
            raise ConfigurationError(
                f"--like: {config.name} has no row {row_id!r}",
                "name the `id` of a hit, for example docs/a.md#0; `item_id` is without #",
            )
    return rows.column(column).combine_chunks().take(pa.array([places[row_id] for row_id in ids]))
