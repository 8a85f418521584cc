"""`vecbeam search CONFIG QUERY`: a text, a media file or a row to the nearest rows of the served collection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from pipelines.steps.collection.importance import NAME as IMPORTANCE
from pipelines.steps.collection.importance import similarities_of, with_importance
from pipelines.steps.collection.query import LikeQuery, MediaQuery, Query
from pipelines.steps.collection.query_encoder import QueryEncoder
from pipelines.steps.collection.rank_fusion import DEPTH, METRIC, fused
from pipelines.steps.collection.reranking import CANDIDATES, Reranker, Stages, stages
from pipelines.steps.collection.reranking import METRIC as MAX_SIMILARITY
from pipelines.steps.collection.served import check_space, nothing_served, open_for_search
from pipelines.steps.collection.word_arithmetic import Arithmetic, LeftOut, without
from pipelines.steps.corpus.known_spaces import known_spaces
from schemas.config import Collection, Config, EncoderConfig
from schemas.errors import CheckpointError, CollectionError, ConfigurationError, SpaceMismatchError
from schemas.layout import Space, VectorKind, identity_fields
from schemas.milvus.full_text import TEXT_COLUMN
from schemas.modality import ROW_MODALITY
from transforms import milvus
from transforms.encoders import Encoder, Model, resolve
from transforms.encoders.fitted.kept_fits import KeptFits
from transforms.encoders.models import corpus_root
from transforms.load.specification import vector_column
from transforms.milvus.rows.contents import read_back
from transforms.support.storage import filesystem

SHOWN_CHARACTERS = 160
MOST_ROWS = 16384
"""Rows of one search that Milvus gives at most."""
T = TypeVar("T")


def columns(config: Config) -> tuple[str, ...]:
    """Columns of a hit that each collection of the corpus' modality has; the metadata columns come after them."""
    given = ("id", "item_id", "chunk", ROW_MODALITY, "text", "uri", "start", "end")
    has = {one.name for one in identity_fields(config.corpus.modality)}
    return tuple(name for name in given if name in has)


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        metric: what `score` measures: COSINE, IP, BM25, RRF (of several vectors) or MaxSim (of tokens), where larger is
            nearer, or L2, where smaller is nearer.
        hits: of each query, best first; one dict per row, see `search`.
        similarities: see `similarities_of`.
    """

    metric: str
    hits: list[list[dict[str, Any]]]
    similarities: tuple[float, ...] = ()

    def with_importance(self, config: Config) -> Found:
        """The same hits, each with its `importance`; raises what `with_importance` raises."""
        names = list(config.corpus.metadata)
        return self._replace(hits=[with_importance(hits, self.metric, self.similarities, names) for hits in self.hits])


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
            vector: which vector of the rows is searched, if they have several; the first one for "". Of several names
                each is searched, and their hits are fused by rank: see `rank_fusion`.
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
        _check(queries, k)
        names, late = self._stages(vector, rerank, candidates)
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
        _check_texts(arithmetic.plus, "plus")
        _check_texts(arithmetic.minus, "minus")
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
            _vector(self._config, name)
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
            _check_rows("candidates", candidates)
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
            name = _vector(self._config, vector)
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


def _vector(config: Config, name: str) -> str:
    """The vector to search: the one of a name, or the first.

    Raises:
        ConfigurationError: if rows have no vector of that name.
    """
    if name and name not in config.vectors:
        raise ConfigurationError(
            f"rows have no vector {name!r}",
            f"name one of: {', '.join(config.vectors)}; without --vector it is the first",
        )
    return name or next(iter(config.vectors))


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


def _check(queries: Sequence[Query], k: int) -> None:
    _check_rows("k", k)
    _check_texts(queries, "query", "the query")


def _check_rows(name: str, rows: int) -> None:
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= MOST_ROWS:
        raise ConfigurationError(f"{name} is {rows!r}", f"name a whole number from 1 to {MOST_ROWS}")


def _check_texts(texts: Sequence[Query], name: str, only: str = "") -> None:
    """Refuses what is not a query, and blank texts; `only` is the name of one that is alone."""
    for at, query in enumerate(texts):
        if isinstance(query, (MediaQuery, LikeQuery)):
            continue
        where = only if only and len(texts) == 1 else f"{name} {at}"
        if not isinstance(query, str):
            raise ConfigurationError(f"{where} is of type {type(query).__name__}, not a text", "name a string")
        if not query.strip():
            raise ConfigurationError(f"{where} is blank", "name some words to look for")
        try:
            query.encode()
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                f"{where} has a lone surrogate U+{ord(query[error.start]):04X} at character {error.start}",
                "decode the text with the right encoding",
            ) from None


def search(
    config: Config,
    query: Query,
    *,
    k: int = 10,
    filter_expression: str = "",
    vector: str | Sequence[str] = "",
    plus: str | Sequence[str] = (),
    minus: str | Sequence[str] = (),
    rerank: str = "",
    candidates: int | None = None,
    importance: bool = False,
) -> list[dict[str, Any]]:
    """The `k` rows nearest to a query, best first.

    Args:
        query: a text, a media file, or a row; see `pipelines.steps.collection.query`.
        config: whose encoder embeds the query and whose alias is searched.
        filter_expression: Milvus expression over the columns, e.g. 'author == "ting-yili"'.
        vector: which vector of the rows is searched, if they have several; the first one for "". Of several names
            each is searched, and their hits are fused by rank: see `rank_fusion`.
        plus, minus: texts whose vectors are added to the query's, and subtracted; see `Arithmetic`.
        rerank: a vector of tokens, by which the rows found are ranked again; see `reranking`.
        candidates: rows that the search finds for it, 100 by default.
        importance: gives each row `importance`, from 0 to 100: of pairs of the corpus's rows (a sample), how many
            percent are less similar than the query and this row.

    Returns:
        One dict per row: score, id, item_id, chunk, text (uri of media), start, end, and the metadata columns. With
        COSINE, IP and BM25 a larger score is nearer, with L2 a smaller one. BM25 finds only rows that have a word of
        the query.

    Raises:
        ConfigurationError: if the query is blank, or Milvus does not understand the filter.
        CollectionError: if nothing is published, or Milvus does not answer.
        SpaceMismatchError: if the collection holds vectors of another space than the configuration's encoder.
    """
    options: dict[str, Any] = {"vector": vector, "plus": plus, "minus": minus}
    options |= {"rerank": rerank, "candidates": candidates, "importance": importance}
    return find(config, query, k=k, filter_expression=filter_expression, **options).hits[0]


def find(
    config: Config,
    query: Query,
    *,
    k: int = 10,
    filter_expression: str = "",
    vector: str | Sequence[str] = "",
    plus: str | Sequence[str] = (),
    minus: str | Sequence[str] = (),
    rerank: str = "",
    candidates: int | None = None,
    importance: bool = False,
) -> Found:
    """`search`, with the metric of its scores."""
    searcher = Searcher(config)
    try:
        options: dict[str, Any] = {"vector": vector, "plus": plus, "minus": minus}
        options |= {"rerank": rerank, "candidates": candidates}
        found = searcher.search([query], k, filter_expression=filter_expression, **options)
        return found.with_importance(config) if importance else found
    finally:
        searcher.close()


def query_settings(config: Config, vector: str = "") -> EncoderConfig:
    """How queries are embedded: in float32 where the corpus is in int8, which would need its sample of texts.

    Args:
        vector: for which vector; the first one for "".
    """
    encoder = config.vectors[_vector(config, vector)]
    return encoder.model_copy(update={"precision": "float32"}) if encoder.precision == "int8" else encoder


def query_encoder(config: Config) -> Encoder:
    """The encoder for queries; see `query_settings`."""
    return query_model(config).load()


def query_model(config: Config, vector: str = "", connected: Future[milvus.Milvus] | None = None) -> Model:
    """The model for queries; see `query_settings`. One that is fitted on the corpus is that of what is served.

    Args:
        connected: gives a connection to Milvus; by default one is opened where such a model needs it.
    """
    spaces = partial(known_spaces_of, config, connected)
    return resolve(query_settings(config, vector), KeptFits(corpus_root(config), spaces, _vector(config, vector)))


def known_spaces_of(config: Config, connected: Future[milvus.Milvus] | None) -> Iterable[Space]:
    """See `known_spaces`."""
    if not filesystem.is_local(config.checkpoint):
        from pipelines.run import beam_job

        beam_job.prepare_filesystems(config)
    return known_spaces(config, None if connected is None else connected.result())


def show(found: Found) -> None:
    """Prints the hits of the first query as a table on standard output."""
    from rich.table import Table
    from rich.text import Text

    from pipelines.run.terminal import output

    hits = found.hits[0]
    table = Table(box=None, pad_edge=False)
    table.add_column("L2 distance" if found.metric == "L2" else "score", justify="right", no_wrap=True)
    has_importance = bool(hits) and IMPORTANCE in hits[0]
    if has_importance:
        table.add_column(IMPORTANCE, justify="right", no_wrap=True)
    table.add_column("id", overflow="fold", max_width=48)
    shown = [name for name in ("text", "uri") if not hits or name in hits[0]]
    table.add_column(" or ".join(shown) if hits else "text")
    for hit in hits:
        text = output.clean_line(str(hit.get("text") or hit["uri"]))
        cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
        percent = [f"{hit[IMPORTANCE]:.0f} %"] if has_importance else []
        table.add_row(f"{hit['score']:.4f}", *percent, Text(output.clean(str(hit["id"]))), Text(cut))
    if not hits:
        output.result("nothing found")
        return
    console = output.console(1)
    with console.capture() as capture:
        console.print(table)
    output.result(capture.get().rstrip("\n"), styled=True)
