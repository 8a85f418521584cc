"""Refuses queries that can't be searched for, before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.steps.search.queries.query import OF_ROWS, MediaQuery, Query
from schemas.errors import ConfigurationError

MOST_ROWS = 16384
"""Rows of one search that Milvus gives at most."""


def check_queries(queries: Sequence[Query], k: int) -> None:
    check_rows("k", k)
    check_texts(queries, "query", "the query")


def check_rows(name: str, rows: int) -> None:
    if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= MOST_ROWS:
        raise ConfigurationError(f"{name} is {rows!r}", f"name a whole number from 1 to {MOST_ROWS}")


def check_texts(texts: Sequence[Query], name: str, only: str = "") -> None:
    """Refuses what is not a query, and blank texts; `only` is the name of one that is alone."""
    for at, query in enumerate(texts):
        if isinstance(query, (MediaQuery, *OF_ROWS)):
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
