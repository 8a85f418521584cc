"""Searches of the served collection, with model and connection kept open."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipelines.steps.collection.served import nothing_served
from pipelines.steps.search.fuzzy_search import KeptWords, check_fuzzy, similar_rows
from pipelines.steps.search.hits.answers import answering_vector, with_answers
from pipelines.steps.search.hits.found import Found, columns
from pipelines.steps.search.hits.kept_hits import first_of_items
from pipelines.steps.search.hits.rank_fusion import DEPTH, METRIC, fused
from pipelines.steps.search.hits.reranking import CANDIDATES, Reranker, Stages, stages
from pipelines.steps.search.hits.reranking import METRIC as MAX_SIMILARITY
from pipelines.steps.search.nearest_rows import nearest_rows, stored_vectors
from pipelines.steps.search.open_search import OpenSearch, OpenSearches
from pipelines.steps.search.queries.checked_queries import MOST_ROWS, check_queries, check_rows, check_texts
from pipelines.steps.search.queries.preferences import with_rows
from pipelines.steps.search.queries.query import LikeQuery, PreferenceQuery, Query
from pipelines.steps.search.queries.query_encoder import QueryEncoder
from pipelines.steps.search.queries.query_model import query_model, query_settings, vector_for, vector_named
from pipelines.steps.search.queries.word_arithmetic import Arithmetic
from pipelines.steps.search.search_options import ROW, SearchOptions
from schemas.config import Config
from schemas.errors import CheckpointError, ConfigurationError, SpaceMismatchError
from schemas.layout import VectorKind
from transforms import milvus
from transforms.encoders import Model, resolve
from transforms.milvus.rows.contents import by_ids
from transforms.milvus.rows.read import query as query_rows

_DEFAULTS = SearchOptions()


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
        self._open = OpenSearches(config, release=release)
        self._changing = threading.RLock()
        self._reranker: Reranker | None = None
        self._words = KeptWords()
        self._kinds: dict[str, VectorKind] | None = None

    def configure(self, config: Config) -> None:
        """Searches with another configuration from now on; what is open stays open where it still fits."""
        with self._changing:
            if not self._open.configure(config):
                self._forget_models()

    def search(self, queries: Sequence[Query], k: int = 10, options: SearchOptions = _DEFAULTS) -> Found:
        """The `k` rows nearest to each query. They are embedded together and searched in one call to Milvus.

        Args:
            queries: texts, media files, or rows.

        Raises:
            ConfigurationError: if a query is blank or no text, or has no word that the model knows, `k` is out of
                range, the filter is not understood, vectors are added that are not dense, or `rerank` names another
                vector.
            CollectionError: if nothing is published, or Milvus does not answer.
            CheckpointError: if the parts do not have what is ranked by.
            SpaceMismatchError: if the collection holds vectors of another space than the configuration's encoder.
        """
        check_queries(queries, k)
        answering = answering_vector(self._open.config, queries, options) if options.answer else ""
        found = self._searched(queries, k, options)
        if options.importance:
            found = found.with_importance(self._open.config)
        return self._with_answers(queries, found, answering) if answering else found

    def _with_answers(self, queries: Sequence[Query], found: Found, vector: str) -> Found:
        queries = self._with_rows(queries, vector)
        config, opened = self._open.enter(vector)
        try:
            vectors = opened.models.embed(queries, Arithmetic(), lambda ids: stored_vectors(config, opened, ids))
            return found._replace(hits=with_answers(found.hits, vectors, opened.models.encoder))
        finally:
            opened.leave()

    def _fuzzy(self, queries: Sequence[Query], k: int, options: SearchOptions) -> Found:
        """The hits of the queries as they are, and with their words corrected, and rows with similar words, fused."""
        texts = check_fuzzy(queries, options)
        plain, depth = replace(options, fuzzy=False), max(k, DEPTH)
        config, opened = self._open.enter(self._stages(options.vector, "", options.candidates).first[0])

        def found(one: OpenSearch) -> tuple[list[str], list[list[dict[str, Any]]]]:
            if (state := milvus.described(one.connection, config.name)) is None:
                raise nothing_served(config)
            return similar_rows(self._words.of(config, state), texts, one.connection, state, config, options, depth)

        try:
            corrected, similar = self._open.read(opened, found)
        finally:
            opened.leave()
        both = [*texts, *corrected] if corrected != texts else texts
        try:
            hits = self._searched(both, depth, plain).hits
        except ConfigurationError:
            if corrected == texts:  # else the model may not know the words as they are
                raise
            hits = self._searched(corrected, depth, plain).hits
        lists = [hits[start : start + len(texts)] for start in range(0, len(hits), len(texts) or 1)] + [similar]
        key = "item_id" if options.by_item else "id"
        return Found(METRIC, [fused(own, k, key) for own in zip(*lists, strict=True)])

    def _searched(self, queries: Sequence[Query], k: int, options: SearchOptions) -> Found:
        if options.fuzzy:
            return self._fuzzy(queries, k, options)
        names, late = self._stages(
            options.vector or vector_for(self._open.config, queries), options.rerank, options.candidates
        )
        if late:
            if options.plus or options.minus:
                raise ConfigurationError(
                    f"the vector {late} ranks rows by their tokens, and no vector is added to those",
                    "leave --plus and --minus out, or --rerank",
                )
            return self._reranked(self._with_rows(queries, names[0]), k, options, names, late)
        if len(names) > 1:
            return self._search_each(queries, k, options, names)
        arithmetic = Arithmetic.of(options.plus, options.minus)
        check_texts(arithmetic.plus, "plus")
        check_texts(arithmetic.minus, "minus")
        queries = self._with_rows(queries, names[0])
        for attempt in range(2):
            config, opened = self._open.enter(names[0])
            try:
                return self._search_once(config, opened, queries, k, options, arithmetic)
            except SpaceMismatchError:
                # The alias may have moved to a collection of the same model, fitted again.
                if attempt or not opened.models.is_fitted:
                    raise
                self._open.forget(opened)
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
        config, opened = self._open.enter("")
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
        opened: OpenSearch,
        queries: Sequence[Query],
        k: int,
        options: SearchOptions,
        arithmetic: Arithmetic,
    ) -> Found:
        left_out = [arithmetic.left_out(query) for query in queries]
        vectors = opened.models.embed(queries, arithmetic, lambda ids: stored_vectors(config, opened, ids))
        return self._open.read(opened, lambda one: nearest_rows(config, one, vectors, k, options, left_out))

    def _with_rows(self, queries: Sequence[Query], vector: str) -> Sequence[Query]:
        """The queries with the rows of those that name some."""
        if not any(isinstance(query, (LikeQuery, PreferenceQuery)) for query in queries):
            return queries
        config, opened = self._open.enter(vector)

        def found(one: OpenSearch) -> list[Query]:
            if (served := milvus.served(one.connection, config.name)) is None:
                raise nothing_served(config)
            return with_rows(queries, one.connection, served, config.name)

        try:
            return self._open.read(opened, found)
        finally:
            opened.leave()

    def _search_each(self, queries: Sequence[Query], k: int, options: SearchOptions, names: Sequence[str]) -> Found:
        """The hits of several vectors, fused by rank."""
        key = "item_id" if options.by_item else "id"
        found = [self._searched(queries, max(k, DEPTH), replace(options, vector=name)).hits for name in names]
        return Found(METRIC, [fused(lists, k, key) for lists in zip(*found, strict=True)])

    def _stages(self, vector: str | Sequence[str], rerank: str, candidates: int | None) -> Stages:
        """The vectors that are searched, and the one by which the hits are ranked again."""
        names = [name for name in dict.fromkeys([vector] if isinstance(vector, str) else vector) if name]
        with self._changing:
            config = self._open.config
            for name in [*names, rerank]:
                vector_named(config, name)
            if len(config.vectors) == 1 and not rerank:
                found = Stages(names or [""], "")
            else:
                if self._kinds is None:
                    self._kinds = {name: resolve(query_settings(config, name)).kind for name in config.vectors}
                found = stages(self._kinds, names, rerank)
        if candidates is not None:
            check_rows("candidates", candidates)
            if not found.late:
                raise ConfigurationError(
                    f"candidates is {candidates}, and nothing is ranked again", "name a vector of tokens with --rerank"
                )
        return found

    def _reranked(
        self, queries: Sequence[Query], k: int, options: SearchOptions, names: Sequence[str], late: str
    ) -> Found:
        """The hits of a search, ranked again."""
        first = replace(options, vector=names, rerank="", candidates=None, by=ROW)
        depth = max(k, options.candidates or CANDIDATES)
        with self._changing:
            if self._reranker is None or self._reranker.name != late:
                models = {name: query_model(self._open.config, name) for name in self._open.config.vectors}
                self._reranker = Reranker(self._open.config, QueryEncoder.of(self._open.config, models, late))
            reranker = self._reranker
        while True:
            hits, ranked = self._ranked(reranker, queries, depth, first, names[0])
            if options.by_item:
                ranked = [first_of_items(own, lambda hit: hit["item_id"]) for own in ranked]
            short = any(len(own) < k and len(all_) == depth for own, all_ in zip(ranked, hits, strict=True))
            if not short or depth == MOST_ROWS:
                return Found(MAX_SIMILARITY, [own[:k] for own in ranked])
            depth = min(MOST_ROWS, depth * 4)  # many of the rows are of one item

    def _ranked(
        self, reranker: Reranker, queries: Sequence[Query], depth: int, first: SearchOptions, vector: str
    ) -> tuple[list[list[dict[str, Any]]], list[list[dict[str, Any]]]]:
        """The hits of a search, and the same ranked again."""
        for last in (False, True):
            hits = self._searched(queries, depth, first).hits
            config, opened = self._open.enter(vector)
            try:
                state = milvus.described(opened.connection, config.name)
            finally:
                opened.leave()
            if state is None:
                raise nothing_served(config)
            try:
                return hits, reranker.rank(queries, hits, depth, state)
            except CheckpointError:
                if last:  # else the alias may have moved since the search
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Frees model and connection, as soon as searches of other threads have ended."""
        with self._changing:
            self._open.close()
            self._forget_models()

    def _forget_models(self) -> None:
        self._reranker = self._kinds = None
        self._words = KeptWords()

    def model(self) -> Model:
        """The model of the queries."""
        return query_model(self._open.config)
