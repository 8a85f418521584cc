"""Queries without labels: a title has to find its document, or a sentence the rest of its text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from schemas.errors import ConfigurationError
from transforms.explore.live_rows import LiveRows
from transforms.quality.judged_queries import JudgedQueries, LoggedQuery

KEY = "--known-items"
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
FEWEST_WORDS, MOST_WORDS = 4, 60
"""Words of a sentence that is a query."""
SHORTEST_REST = 80
"""Characters that remain of the text."""


class HeldOut(NamedTuple):
    """A row whose text is embedded again without the sentence that is its query."""

    row_id: str
    rest: str


class KnownItems(NamedTuple):
    """Queries, each with the one item that is known to answer it.

    Attributes:
        held_out: for queries that are sentences, the rows without them.
    """

    judged: JudgedQueries
    held_out: list[HeldOut]


def from_titles(rows: LiveRows, column: str, count: int, seed: int) -> KnownItems:
    """Queries from a column of the rows, for `count` items that are drawn by a seed.

    Raises:
        ConfigurationError: if rows have no such column, or no item has a value in it that no other has.
    """
    rows.check_columns([column], "--title")
    drawn = _draw(_items(rows.tables(["id", "item_id", column]), column), count, seed)
    chosen = [(item, str(title)) for item, _, title in drawn if str(title or "").strip()]
    if not chosen:
        raise ConfigurationError(f"--title: no item has a value in the column {column!r}", "name another column")
    shared = _shared(rows, column, {title for _, title in chosen})
    own = [(item, title) for item, title in chosen if title not in shared]
    if not own:
        raise ConfigurationError(
            f"--title: of {len(chosen):,} items, each has the {column} of another one, for example {chosen[0][1]!r}",
            "name a column that tells items apart",
        )
    note = f"known items: the {column} of each of {len(own):,} items is a query, and the item is its only answer"
    if left := len(chosen) - len(own):
        note += f"; {left:,} items are left out, whose {column} another item has too"
    return KnownItems(_judged(own, note), [])


def _shared(rows: LiveRows, column: str, titles: set[str]) -> set[str]:
    """Those of some titles that several items have."""
    first: dict[str, str] = {}
    shared = set()
    for table in rows.tables(["item_id", column]):
        for item, value in zip(table.column("item_id").to_pylist(), table.column(column).to_pylist(), strict=True):
            title = str(value)
            if title in titles and first.setdefault(title, item) != item:
                shared.add(title)
    return shared


def from_sentences(rows: LiveRows, count: int, seed: int) -> KnownItems:
    """Queries from sentences of texts, for `count` items that are drawn by a seed.

    Raises:
        ConfigurationError: if the rows have no text, or no text has a sentence to spare.
    """
    if "text" not in rows.schema.names:
        raise ConfigurationError(
            f"{KEY}: the rows have no text to take a sentence from", "name queries and truth, or a column with --title"
        )
    random = np.random.default_rng(seed)
    chosen: list[tuple[str, str]] = []
    held_out: list[HeldOut] = []
    # Not every text has a sentence to spare.
    for item, row_id, text in _draw(_items(rows.tables(["id", "item_id", "text"]), "text"), 3 * count, seed):
        sentences = [one for one in _SENTENCE_END.split(str(text).strip()) if one]
        fitting = [
            at
            for at, one in enumerate(sentences)
            if FEWEST_WORDS <= len(one.split()) <= MOST_WORDS and len(str(text)) - len(one) >= SHORTEST_REST
        ]
        if not fitting or len(chosen) == count:
            continue
        at = fitting[int(random.integers(len(fitting)))]
        chosen.append((item, sentences[at]))
        held_out.append(HeldOut(row_id, " ".join(sentences[:at] + sentences[at + 1 :])))
    if not chosen:
        raise ConfigurationError(
            f"{KEY}: no text has a sentence of {FEWEST_WORDS} to {MOST_WORDS} words and enough other text",
            "name queries and truth, or a column with --title",
        )
    note = (
        f"known items: a sentence of each of {len(chosen):,} items is a query, and the item is its only answer; "
        "the sentence is left out of what was embedded"
    )
    return KnownItems(_judged(chosen, note), held_out)


def _judged(chosen: list[tuple[str, str]], note: str) -> JudgedQueries:
    queries = [LoggedQuery(item, text) for item, text in chosen]
    notes = [note, "known-item queries are easier than those of users: the figures compare, they do not grade"]
    return JudgedQueries(queries, {item: {item: 1} for item, _ in chosen}, notes)


def _items(tables: Iterable[pa.Table], column: str) -> Iterable[tuple[str, str, str | None]]:
    """The first row of each item: item id, row id and the value of the column."""
    last = None
    for table in tables:
        for row_id, item, value in zip(
            *(table.column(name).to_pylist() for name in ("id", "item_id", column)), strict=True
        ):
            if item != last:
                yield item, row_id, value
            last = item


def _draw(items: Iterable[tuple[str, str, str | None]], count: int, seed: int) -> list[tuple[str, str, str | None]]:
    """Some of a stream, each as likely as any other: Vitter, Random sampling with a reservoir, 1985, algorithm R."""
    random = np.random.default_rng(seed)
    kept: list[tuple[str, str, str | None]] = []
    seen: set[str] = set()
    for at, item in enumerate(items):
        if len(kept) < count:
            kept.append(item)
        elif (place := int(random.integers(at + 1))) < count:
            kept[place] = item
    unique = []
    for item in kept:  # rows of an item may lie apart
        if item[0] not in seen:
            seen.add(item[0])
            unique.append(item)
    return unique
