"""Searches a collection or an alias."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from schemas.config.encoder import VECTOR
from schemas.errors import CollectionError, ConfigurationError, VecbeamError
from schemas.milvus import SEARCH_DEFAULTS
from transforms.milvus.rows.message import Vectors, as_dicts
from transforms.milvus.rows.read import read

if TYPE_CHECKING:
    from transforms.milvus.connection import Milvus

Queries: TypeAlias = Vectors | list[str]
"""Vectors, or texts of which Milvus computes them."""
QUERIES = 100
"""Most queries of one search call."""

_FILTER = re.compile(
    r"pars|expression|expr|query plan|filter|unexpected|unknown|field .* not (exist|found)|fieldname|operator|literal"
    r"|comparison|type mismatch|unterminated",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Hit:
    """A row found. `score` is Milvus' distance: larger is nearer for COSINE, IP and BM25, smaller for L2."""

    id: str
    score: float
    fields: dict[str, Any] = field(default_factory=dict)


def search(
    connection: Milvus,
    name: str,
    vector: np.ndarray[Any, np.dtype[np.float32]],
    k: int,
    filter: str = "",
    output_fields: Sequence[str] = (),
    search_parameters: Mapping[str, int] | None = None,
    index_type: str = "AUTOINDEX",
    field_name: str = VECTOR,
) -> list[Hit]:
    """The `k` rows of a collection (or of the one behind an alias) nearest to `vector` float32[dim], best first.

    See `search_each`.
    """
    vectors = np.asarray(vector, dtype=np.float32).reshape(1, -1)
    return search_each(connection, name, vectors, k, filter, output_fields, search_parameters, index_type, field_name)[
        0
    ]


def search_each(
    connection: Milvus,
    name: str,
    vectors: Queries,
    k: int,
    filter: str = "",
    output_fields: Sequence[str] = (),
    search_parameters: Mapping[str, int] | None = None,
    index_type: str = "AUTOINDEX",
    field_name: str = VECTOR,
) -> list[list[Hit]]:
    """The `k` rows of a collection (or of the one behind an alias) nearest to each of some vectors.

    Args:
        vectors: float32[n, dimensions], or an Arrow array of sparse ones; texts, for a vector that Milvus computes.
        filter: an expression over the collection's fields, e.g. `year > 1990 and author == "ting-yili"`.
        search_parameters: over the index type's defaults.
        field_name: the vector field that is searched.

    Returns:
        The hits of each vector, best first.

    Raises:
        ConfigurationError: if Milvus doesn't understand the filter.
        CollectionError: if the search fails otherwise.
    """
    parameters = effective_parameters(index_type, search_parameters or {}, k)
    found = search_many(connection, name, vectors, k, parameters, filter, output_fields, field_name)
    short = [at for at, hits in enumerate(found) if len(hits) < k]
    if not short or not parameters:
        return found  # an index without search parameters looks at every row
    # An index that walks a graph or some lists may miss rows that a narrow filter leaves: look wider until all
    # that match, or k of them, were found.
    wanted = min(k, _matching(connection, name, filter))
    for wider in _wider(parameters):
        short = [at for at in short if len(found[at]) < wanted]
        if not short:
            break
        again = search_many(connection, name, _some(vectors, short), k, wider, filter, output_fields, field_name)
        for at, hits in zip(short, again, strict=True):
            found[at] = hits
    return found


def check_filter(connection: Milvus, name: str, filter: str) -> None:
    """Raises unless Milvus understands a filter.

    Raises:
        ConfigurationError: with Milvus' own words.
    """
    try:
        _matching(connection, name, filter)
    except CollectionError as error:
        raise _not_understood(filter, error) from error


def _not_understood(filter: str, error: CollectionError) -> VecbeamError:
    if not _FILTER.search(error.message.split(" failed: ", 1)[-1]):
        return error
    return ConfigurationError(
        f"Milvus does not understand the filter {filter}: {error.message.split(' failed: ', 1)[-1]}",
        "a filter compares fields of the collection, e.g. --filter 'author == \"ting-yili\"'",
    )


def _matching(connection: Milvus, name: str, filter: str) -> int:
    answer = read(connection, connection.client.query, name, filter=filter, output_fields=["count(*)"])
    return int(answer[0]["count(*)"])


def _wider(parameters: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yields search parameters, eight times as large each time, up to Milvus' own limits."""
    limits = {"ef": 32768, "nprobe": 65536}
    current = dict(parameters)
    while any(current[name] < limits[name] for name in current):
        current = {name: min(value * 8, limits[name]) for name, value in current.items()}
        yield current


def search_many(
    connection: Milvus,
    name: str,
    vectors: Queries,
    k: int,
    parameters: Mapping[str, int],
    filter: str = "",
    output_fields: Sequence[str] = (),
    field_name: str = VECTOR,
) -> list[list[Hit]]:
    """Searches with several vectors; the hits of each, best first. See `search_each`."""
    found: list[list[Hit]] = []
    # The metric is the index's: Lite returns wrong results for another one, without an error.
    for start in range(0, len(vectors), QUERIES):
        try:
            answer = read(
                connection,
                connection.client.search,
                name,
                data=_as_queries(vectors[start : start + QUERIES]),
                anns_field=field_name,
                limit=k,
                filter=filter,
                output_fields=list(output_fields),
                search_params={"params": dict(parameters)},
            )
        except CollectionError as error:
            if filter:
                raise _not_understood(filter, error) from error
            raise
        found.extend(
            [Hit(str(hit["id"]), _score(hit["distance"], vectors), dict(hit["entity"])) for hit in hits]
            for hits in answer
        )
    return found


def _score(distance: float, queries: Queries) -> float:
    # A BM25 score is never negative; Milvus Lite gives it with a minus.
    return abs(float(distance)) if isinstance(queries, list) else float(distance)


def _as_queries(vectors: Queries) -> list[Any]:
    return as_dicts(vectors) if isinstance(vectors, pa.StructArray) else list(vectors)


def _some(vectors: Queries, rows: Sequence[int]) -> Queries:
    if isinstance(vectors, pa.StructArray):
        return vectors.take(pa.array(rows, pa.int64()))
    return [vectors[row] for row in rows] if isinstance(vectors, list) else vectors[list(rows)]


def effective_parameters(index_type: str, parameters: Mapping[str, int], k: int) -> dict[str, int]:
    """Search parameters over the type's defaults; HNSW's ef is raised to k where it is less, as Milvus requires.

    >>> effective_parameters("HNSW", {"ef": 5}, k=10)
    {'ef': 10}
    """
    merged = {**SEARCH_DEFAULTS[index_type], **parameters}
    if "ef" in merged:
        merged["ef"] = max(merged["ef"], k)
    return merged
