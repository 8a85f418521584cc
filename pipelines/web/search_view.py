"""Searching: the page, its form, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from pipelines.steps.search.hits.found import Found, columns
from pipelines.steps.search.queries.query import LikeQuery, MediaQuery
from pipelines.steps.search.searcher import Searcher
from pipelines.web.card import Card, card
from pipelines.web.request_query import FILTER, RequestQuery
from pipelines.web.site import Site
from schemas.config import Config
from schemas.errors import ConfigurationError, VecbeamError
from schemas.modality import Modality

CHOICES = 40
"""Most values of a column of strings that the form proposes."""
SAMPLE = 20_000
"""Rows that these are counted in."""


def search(searcher: Searcher, config: Config, wanted: RequestQuery) -> Found:
    """The hits of a request, with their importance where the collection knows it.

    Raises:
        ConfigurationError: if there is no query, or it is not valid.
        CollectionError: if nothing is published, or Milvus does not answer.
    """
    if wanted.query is None:
        raise ConfigurationError("there is no query", "write a text, or choose a file")
    found = searcher.search([wanted.query], wanted.k, wanted.options)
    return found.with_importance(config) if found.similarities else found


def cards(found: Found, wanted: RequestQuery, config: Config) -> list[Card]:
    """The cards of the hits."""
    words = wanted.query if isinstance(wanted.query, str) else ""
    return [card(hit, found.metric, words, config) for hit in found.hits[0]]


def page(site: Site, wanted: RequestQuery) -> dict[str, Any]:
    """What the template of the page needs: the form as it was filled in, and the hits or the error."""
    values: dict[str, Any] = {"wanted": wanted, "fields": fields_of(site), "vectors": _vectors(site.config)}
    values |= {"words": wanted.query if isinstance(wanted.query, str) else "", "error": None, "cards": None}
    values |= {"what": _what(wanted), "accepts": accepts(site.config)}
    values |= {"has_texts": has_texts(site.config), "can_answer": can_answer(site)}
    if wanted.query is None:
        return values
    try:
        found = search(site.searcher, site.config, wanted)
    except VecbeamError as error:
        return values | {"error": error}
    return values | {"cards": cards(found, wanted, site.config), "metric": found.metric}


def _what(wanted: RequestQuery) -> str:
    if isinstance(wanted.query, LikeQuery):
        return f"like {wanted.query.row_id}"
    if isinstance(wanted.query, MediaQuery):
        return "near the file"
    return f"near “{wanted.query}”"


def accepts(config: Config) -> str:
    """What kinds of files the form takes, as the attribute `accept`; "" for a corpus of texts."""
    if config.corpus.modality is Modality.TEXT:
        return ""
    return ",".join(f"{kind}/*" for kind in ("image", "audio", "video") if Modality(kind) in config.corpus.modalities)


def has_texts(config: Config) -> bool:
    """Whether rows have texts: sentences that may answer, and words that may be misspelt."""
    return "text" in columns(config)


def can_answer(site: Site) -> bool:
    """Whether a sentence can be marked: rows have texts, and a dense vector that its own is compared with."""
    try:
        return has_texts(site.config) and site.rows().has_dense
    except VecbeamError:  # the search says what is wrong
        return has_texts(site.config)


def _vectors(config: Config) -> list[str]:
    return list(config.vectors) if len(config.vectors) > 1 else []


def fields_of(site: Site) -> list[dict[str, Any]]:
    """A field of the form for each metadata column: its name, its type, and its most frequent values."""
    frequent: Mapping[str, list[str]] = site.once("values", lambda: _frequent(site), seconds=600)
    return [
        {"name": f"{FILTER}{name}", "column": name, "type": field.type, "choices": frequent.get(name, [])}
        for name, field in site.config.corpus.metadata.items()
    ]


def _frequent(site: Site) -> dict[str, list[str]]:
    """The most frequent values of columns of strings, in the first rows; nothing where the checkpoint can't be read."""
    names = [name for name, field in site.config.corpus.metadata.items() if field.type == "string"]
    if not names:
        return {}
    try:
        rows = site.rows()
        known = [name for name in names if name in rows.schema.names]
        table = next(rows.tables(known or ["id"], SAMPLE))
    except VecbeamError:  # the form works without them
        return {}
    found: dict[str, list[str]] = {}
    for name in known:
        counts = pc.value_counts(table.column(name).drop_null())
        order = pc.sort_indices(counts.field("counts"), [("", "descending")])[:CHOICES]
        found[name] = sorted(counts.field("values").take(order).to_pylist())
    return found
