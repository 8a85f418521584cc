"""Rankings of items for queries: exact ones over the checkpoint's vectors, and those of the served index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.steps.search.queries.checked_queries import MOST_ROWS
from pipelines.steps.search.queries.query import MediaQuery, Query
from pipelines.steps.search.search_options import SearchOptions
from pipelines.steps.search.searcher import Searcher
from schemas.errors import CheckpointError, ConfigurationError
from schemas.modality import Modality
from transforms.encoders import Encoder, text_inputs
from transforms.encoders.base import media_inputs
from transforms.explore.live_rows import LiveRows, check_finite
from transforms.quality.exact_ranking import DEPTH, rank_items
from transforms.quality.judged_queries import LoggedQuery
from transforms.quality.known_items import HeldOut
from transforms.support.vectors import matrix_of

Floats = NDArray[np.float32]
QUERIES_AT_ONCE = 64
WIDER = 4


@dataclass(frozen=True)
class Ranked:
    """The items of each query, best first, by query id.

    Attributes:
        notes: queries that found nothing, and why; a sentence each.
    """

    items: Mapping[str, list[str]]
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True)
class EmbeddedQueries:
    """Queries as vectors.

    Attributes:
        vectors: float32[n, dimensions].
        notes: queries that are not among them or were cut, a sentence each.
    """

    ids: Sequence[str]
    vectors: Floats
    notes: Sequence[str] = field(default=())


def embed_queries(queries: Sequence[LoggedQuery], encoder: Encoder, modalities: Iterable[Modality]) -> EmbeddedQueries:
    """Embeds queries with the prompt for queries. One that the model refuses is left out, with a note.

    Raises:
        ConfigurationError: for a query of a modality that the model does not embed, or if it refuses all.
    """
    known = set(modalities)
    ids: list[str] = []
    pieces: list[Floats] = []
    refused: list[tuple[str, str]] = []
    cut: list[tuple[int, str]] = []
    for modality in dict.fromkeys(one.modality for one in queries):
        some = [one for one in queries if one.modality is modality]
        if modality not in known:
            raise ConfigurationError(
                f"the query {some[0].id!r} is of modality {modality}, the encoder embeds {', '.join(sorted(known))}",
                "leave these queries out, or name another vector with --vector",
            )
        contents = [one.content for one in some]
        encoded = encoder.encode(media_inputs(contents) if modality.is_media else text_inputs(contents), query=True)
        refused += [(some[row].id, reason) for row, (_, reason) in sorted(encoded.refused.items())]
        cut += [(int(dropped), some[row].id) for row, dropped in enumerate(encoded.dropped) if dropped]
        kept = [row for row in range(len(some)) if row not in encoded.refused]
        ids += [some[row].id for row in kept]
        if kept:
            pieces.append(matrix_of(encoded.vectors.take(pa.array(kept))))
    if not pieces:
        raise ConfigurationError(
            f"the encoder embeds no query: {refused[0][0]!r}: {refused[0][1]}", "name other queries"
        )
    notes = []
    if refused:
        notes.append(_left_out(refused))
    if cut:
        worst = max(cut)
        notes.append(
            f"{len(cut):,} queries were cut: tokens over the encoder's limit or not known, at most {worst[0]:,} "
            f"(query {worst[1]!r})"
        )
    return EmbeddedQueries(ids, np.concatenate(pieces), notes)


def rank_exactly(
    rows: LiveRows, name: str, queries: EmbeddedQueries, metric: str, held_out: Mapping[str, Floats] | None = None
) -> Ranked:
    """The exact rankings over all vectors of a snapshot, streamed.

    Args:
        name: of the dense vector.
        held_out: vectors that replace those of some rows, by row id.

    Raises:
        CheckpointError: if a part is missing or damaged, a vector is not finite, or is of other dimensions.
    """
    found = rank_items(_vectors(rows, name, queries.vectors.shape[1], held_out or {}), queries.vectors, metric)
    return Ranked(dict(zip(queries.ids, found, strict=True)), queries.notes)


def held_out_vectors(held_out: Sequence[HeldOut], encoder: Encoder) -> dict[str, Floats]:
    """The vectors of texts without the sentence that is a query."""
    if not held_out:
        return {}
    encoded = encoder.encode(text_inputs([one.rest for one in held_out]))
    vectors = encoded.matrix
    return {one.row_id: vectors[row] for row, one in enumerate(held_out) if row not in encoded.refused}


def rank_served(searcher: Searcher, queries: Sequence[LoggedQuery], vector: Sequence[str] = ()) -> Ranked:
    """The rankings of the served index: of as many rows as have `DEPTH` items.

    Args:
        vector: the vectors that are searched, fused where they are several; the first one without.

    Raises:
        CollectionError: if nothing is served, or Milvus does not answer.
        ConfigurationError: if no query can be searched for.
    """
    found: dict[str, list[str]] = {}
    refused: list[tuple[str, str]] = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = queries[start : start + QUERIES_AT_ONCE]
        try:
            found |= _searched(searcher, some, vector)
        except ConfigurationError:
            # One query that can't be embedded costs only itself.
            for one in some:
                try:
                    found |= _searched(searcher, [one], vector)
                except ConfigurationError as error:
                    refused.append((one.id, error.message))
    if not found:
        raise ConfigurationError(f"no query can be searched for: {refused[0][0]!r}: {refused[0][1]}", "name others")
    return Ranked(found, [_left_out(refused)] if refused else ())


def _left_out(refused: Sequence[tuple[str, str]]) -> str:
    return f"{len(refused):,} queries find nothing and count as 0, the first {refused[0][0]!r}: {refused[0][1]}"


def _searched(searcher: Searcher, queries: Sequence[LoggedQuery], vector: Sequence[str]) -> dict[str, list[str]]:
    def nearest(places: Sequence[int], rows: int) -> list[list[str]]:
        some = [_query(queries[at]) for at in places]
        hits = searcher.search(some, rows, SearchOptions(vector=vector)).hits
        return [[hit["item_id"] for hit in own] for own in hits]

    return dict(zip([one.id for one in queries], first_items(len(queries), nearest), strict=True))


def first_items(count: int, nearest: Callable[[Sequence[int], int], list[list[str]]]) -> list[list[str]]:
    """The first `DEPTH` items of each query, of as many rows as it takes.

    Args:
        count: of queries.
        nearest: gives the items of the nearest rows of queries, by the positions of these and a number of rows.
    """
    found: list[list[str]] = [[] for _ in range(count)]
    left, rows = list(range(count)), DEPTH
    while left:
        again = []
        for at, own in zip(left, nearest(left, rows), strict=True):
            items = list(dict.fromkeys(own))
            found[at] = items[:DEPTH]
            # Several rows of an item: there may be more items behind them.
            if len(items) < DEPTH and len(own) >= rows and rows < MOST_ROWS:
                again.append(at)
        left, rows = again, min(MOST_ROWS, rows * WIDER)
    return found


def _query(one: LoggedQuery) -> Query:
    return MediaQuery(one.content, one.modality) if one.modality.is_media else one.content


def _vectors(
    rows: LiveRows, name: str, dimensions: int, held_out: Mapping[str, Floats]
) -> Iterator[tuple[pa.Array, Floats]]:
    wanted = pa.array(list(held_out), pa.string())
    for table in rows.tables(["id", "item_id", name]):
        vectors = matrix_of(table.column(name).combine_chunks())
        _check(table, vectors, dimensions)
        if held_out:
            found = pc.index_in(table.column("id"), wanted).to_pylist()
            vectors = vectors.copy()
            for row, at in enumerate(found):
                if at is not None:
                    vectors[row] = held_out[wanted[at].as_py()]
        yield table.column("item_id").combine_chunks(), vectors


def _check(table: Any, vectors: Floats, dimensions: int) -> None:
    if len(vectors) and vectors.shape[1] != dimensions:
        raise CheckpointError(
            f"the vectors of the checkpoint have {vectors.shape[1]} dimensions, those of queries {dimensions}",
            "use the configuration that made the checkpoint, or run vecbeam reindex",
        )
    check_finite(table, vectors)
