"""The rows of the served collection that are nearest to vectors, and the vectors of its rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.steps.collection.served import check_space, nothing_served, open_for_search, with_index
from pipelines.steps.search.hits.found import Found, columns
from pipelines.steps.search.hits.importance import similarities_of
from pipelines.steps.search.hits.kept_hits import LeftOut, without
from pipelines.steps.search.open_search import OpenSearch
from pipelines.steps.search.queries.checked_queries import MOST_ROWS
from pipelines.steps.search.search_options import SearchOptions
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.milvus.full_text import TEXT_COLUMN
from transforms import milvus
from transforms.load.specification import vector_column
from transforms.milvus.rows.contents import read_back

log = logging.getLogger("vecbeam")


def nearest_rows(
    config: Config, opened: OpenSearch, vectors: Any, k: int, options: SearchOptions, left_out: Sequence[LeftOut]
) -> Found:
    """The `k` rows nearest to each vector, in one call to Milvus.

    Args:
        vectors: as `QueryEncoder.embed` gives them.
        left_out: of each vector: rows that are not hits.

    Raises:
        CollectionError: if nothing is published, or Milvus does not answer.
        SpaceMismatchError: if the collection holds vectors of another space.
    """
    connection = opened.connection
    state = milvus.described(connection, config.name)
    if state is None:
        raise nothing_served(config)
    check_space(state, config, opened.models.layout.space)
    column = vector_column(with_index(config, state), opened.models.field)
    if state.name not in opened.metrics:
        loaded = open_for_search(connection, state.name)
        index = loaded.indexes.get(opened.models.field.name) if loaded is not None else None
        opened.metrics[state.name] = index.metric if index is not None else column.metric
    wanted = [*columns(config), *config.corpus.metadata]
    there = {column.name for column in state.columns}

    searched = 0

    def nearest(rows: int) -> list[list[milvus.Hit]]:
        nonlocal searched
        searched = rows
        return milvus.search_each(
            connection,
            state.name,
            vectors,
            rows,
            options.filter_expression,
            [name for name in wanted if name in there],
            column.search_parameters,
            column.index_type,
            column.name,
        )

    if options.by_item or any(map(any, left_out)):
        found = without(left_out, k, MOST_ROWS, nearest, by_item=options.by_item)
        if searched == MOST_ROWS and (least := min(map(len, found), default=k)) < k:
            log.warning("%d hits instead of %d: the %d nearest rows have no more", least, k, MOST_ROWS)
    else:
        found = nearest(k)
    rows = [[_row(hit, wanted) for hit in hits] for hits in found]
    return Found(opened.metrics[state.name], rows, similarities_of(state.properties, column.name))


def stored_vectors(config: Config, opened: OpenSearch, ids: Sequence[str]) -> pa.Array:
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
            raise ConfigurationError(f"{config.name} has no row {row_id!r} any more", "search again")
    return rows.column(column).combine_chunks().take(pa.array([places[row_id] for row_id in ids]))


def _row(hit: milvus.Hit, wanted: Sequence[str]) -> dict[str, Any]:
    # The score counts, also in a collection with a metadata column of that name.
    score = {"score": round(hit.score, 6)}
    return score | {name: hit.fields.get(name) for name in wanted} | score
