"""A search as a request asks for it: what to look for, and which rows are wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.steps.search.queries.query import LikeQuery, MediaQuery, Query
from pipelines.steps.search.search_options import ROW, SearchOptions
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.modality import Modality

MOST_HITS = 100
MOST_CHARACTERS = 8_192
"""Of a query, and of a filter."""
KINDS = {"image": Modality.IMAGE, "audio": Modality.AUDIO, "video": Modality.VIDEO}
CHOICES = ("answer", "fuzzy")
"""Options that are true or false."""
FILTER = "where."
"""Names of form fields that filter: `where.` and a column; of numbers also with `.from` and `.to`."""


@dataclass(frozen=True)
class RequestQuery:
    """What a request asks for.

    Attributes:
        query: None if there is none yet.
        k: how many rows.
        filter: Milvus expression.
        vectors: to search; empty for the first one.
        given: the filters as they were written, by the names of their form fields.
        by, answer, fuzzy: see `SearchOptions`.
    """

    query: Query | None
    k: int = 10
    filter: str = ""
    vectors: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    by: str = ROW
    answer: bool = False
    fuzzy: bool = False

    @property
    def options(self) -> SearchOptions:
        """How to search.

        Raises:
            ConfigurationError: if `by` is neither row nor item.
        """
        return SearchOptions(self.filter, self.vectors, by=self.by, answer=self.answer, fuzzy=self.fuzzy)


def from_fields(
    fields: Iterable[tuple[str, str]], config: Config, upload: bytes = b"", content_type: str = ""
) -> RequestQuery:
    """A query from the fields of a form or an address, with their names.

    Args:
        upload: the bytes of a file to search for.
        content_type: of it.

    Raises:
        ConfigurationError: for a number that is out of range, a text that is too long, or a column that is not there.
    """
    pairs = [(name, value.strip()) for name, value in fields if value.strip()]
    values = dict(pairs)
    text, like = checked(values.get("q", ""), "q"), checked(values.get("like", ""), "like")
    query: Query | None = LikeQuery(like) if like else text or None
    if upload:
        query = MediaQuery(upload, modality_of(content_type))
    given = {name: value for name, value in pairs if name.startswith(FILTER)}
    also = checked(values.get("filter", ""), "filter")
    return RequestQuery(
        query,
        _number(values.get("k", "10")),
        expression(given, config, also),
        tuple(value for name, value in pairs if name == "vector"),
        {**given, "filter": also},
        values.get("by", ROW),
        **{name: _choice(name, values.get(name, "false")) for name in CHOICES},
    )


def from_json(body: bytes) -> RequestQuery:
    """A query from JSON: {"query": text} or {"like": row id}, with `k`, `filter`, `vector` (a name, or several), `by`
    (row or item), `answer` and `fuzzy` (true or false).

    Raises:
        ConfigurationError: if it is not valid.
    """
    try:
        values = json.loads(body)
    except ValueError as error:
        raise ConfigurationError(f"the body is not JSON: {error}", 'send {"query": "a text"}') from error
    known = {"query", "like", "k", "filter", "vector", "by", *CHOICES}
    if not isinstance(values, dict) or set(values) - known:
        extra = ", ".join(sorted(set(values) - known)) if isinstance(values, dict) else type(values).__name__
        raise ConfigurationError(f"the body has {extra}", f"send an object with some of {', '.join(sorted(known))}")
    for name in ("query", "like", "filter", "by"):
        if not isinstance(values.get(name, ""), str):
            raise ConfigurationError(f"{name} is not a text: {values[name]!r}", f'send {{"{name}": "a text"}}')
    if ("query" in values) == ("like" in values):
        raise ConfigurationError("the body has not exactly one of query and like", 'send {"query": "a text"}')
    vector = values.get("vector", [])
    names = [vector] if isinstance(vector, str) else vector
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise ConfigurationError(f"vector is not a name: {vector!r}", 'send {"vector": "name"}')
    like = values.get("like")
    query: Query = checked(values["query"], "query") if like is None else LikeQuery(checked(like, "like"))
    for name in CHOICES:
        if not isinstance(values.get(name, False), bool):
            raise ConfigurationError(f"{name} is {values[name]!r}", f'send {{"{name}": true}}')
    return RequestQuery(
        query,
        _number(values.get("k", 10)),
        checked(values.get("filter", ""), "filter"),
        tuple(names),
        by=values.get("by", ROW),
        **{name: values.get(name, False) for name in CHOICES},
    )


def modality_of(content_type: str) -> Modality | None:
    """The modality of a file's bytes, from its content type; None where that does not tell."""
    return KINDS.get(content_type.partition("/")[0].strip().lower())


def expression(given: Mapping[str, str], config: Config, also: str = "") -> str:
    """The Milvus expression of form fields; see `FILTER`.

    Raises:
        ConfigurationError: for a column that the configuration does not have, or a value that does not fit it.
    """
    parts = [f"({also})"] if also else []
    for name, value in sorted(given.items()):
        column, _, bound = name.removeprefix(FILTER).partition(".")
        settings = config.corpus.metadata.get(column)
        if settings is None:
            known = ", ".join(config.corpus.metadata) or "none"
            raise ConfigurationError(f"{name}: there is no column {column!r}; there are: {known}", "leave it out")
        operator = {"": "==", "from": ">=", "to": "<="}.get(bound)
        if operator is None or (bound and settings.type not in ("int", "float")):
            raise ConfigurationError(f"{name}: {column} has no bound {bound!r}", f"use {FILTER}{column}")
        parts.append(f"{column} {operator} {_literal(name, checked(value, name), settings.type)}")
    return " and ".join(parts)


def _literal(name: str, value: str, kind: str) -> str:
    if kind == "string":
        return json.dumps(value, ensure_ascii=False)
    if kind == "bool":
        if value not in ("true", "false"):
            raise ConfigurationError(f"{name}: {value!r} is not true or false", f"use {name}=true")
        return value
    try:
        number = int(value) if kind == "int" else float(value)
    except ValueError:
        raise ConfigurationError(f"{name}: {value!r} is not a number", f"use {name}=1") from None
    if not math.isfinite(number):
        raise ConfigurationError(f"{name}: {value!r} is not a finite number", f"use {name}=1")
    return repr(number)


def checked(text: str, name: str) -> str:
    """The text.

    Raises:
        ConfigurationError: if it is longer than `MOST_CHARACTERS`.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigurationError(f"{name} has {len(text):,} characters", f"send at most {MOST_CHARACTERS:,}")
    return text


def _choice(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ConfigurationError(f"{name}: {value!r} is not true or false", f"use {name}=true")
    return value == "true"


def _number(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if isinstance(value, bool) or not 1 <= number <= MOST_HITS:
        raise ConfigurationError(f"k is {value!r}", f"send a number from 1 to {MOST_HITS}")
    return number
