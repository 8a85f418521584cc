"""What a search looks for: a text, a media file, or the rows that are like a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipelines.steps.corpus.given_media import Pixels, bytes_of, is_in_memory
from schemas.errors import ConfigurationError
from schemas.modality import Modality

_SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class MediaQuery:
    """An image, a recording or a film: the path or URI of a file, or its bytes.

    Attributes:
        modality: None for that of the corpus.
    """

    content: str | bytes
    modality: Modality | None = None

    def __str__(self) -> str:
        return self.content if isinstance(self.content, str) else f"the {len(self.content):,} bytes"


@dataclass(frozen=True)
class LikeQuery:
    """A row of the collection, by its id, or an item; its vector is searched for, and it is not among the hits."""

    row_id: str

    def __str__(self) -> str:
        return f"the row {self.row_id}"


class Preference(NamedTuple):
    """An entry of a history: the id of a row or an item, and how much it is liked; a negative weight is a dislike."""

    id: str
    weight: float = 1.0


@dataclass(frozen=True)
class PreferenceQuery:
    """What someone liked and disliked: finds what is like the former and unlike the latter; see `preferences`.

    Attributes:
        like, not_like: ids of rows or items. They are not among the hits. An item counts as the mean of its rows.
        history: what was seen before; see `read_history`.
        hide_seen: leaves out all rows of the items of `like`, `not_like` and `history`.
    """

    like: Sequence[str] = ()
    not_like: Sequence[str] = ()
    history: Sequence[Preference] = ()
    hide_seen: bool = False

    def __post_init__(self) -> None:
        for name in ("like", "not_like"):
            ids = getattr(self, name)
            if isinstance(ids, str):
                object.__setattr__(self, name, (ids,))
            elif not all(isinstance(one, str) for one in ids):
                raise ConfigurationError(f"{name} has an id that is not a string: {ids!r}", "name ids of rows or items")
        if not (self.like or self.history):
            raise ConfigurationError("there is something disliked, and nothing liked", "name rows with --like")

    def __str__(self) -> str:
        parts = [f"like {', '.join(self.like)}"] if self.like else []
        parts += [f"not like {', '.join(self.not_like)}"] if self.not_like else []
        parts += [f"after a history of {len(self.history):,}"] if self.history else []
        return f"rows {', '.join(parts)}"


@dataclass(frozen=True)
class RowsQuery:
    """Rows of the collection whose vectors make a query: what a LikeQuery or a PreferenceQuery stands for.

    Attributes:
        weights: ids of rows, each with the weight of its vector.
        ids, items: rows, and items with their rows, that are not among the hits.
    """

    weights: tuple[tuple[str, float], ...]
    ids: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    shown: str = ""

    def __str__(self) -> str:
        return self.shown


OF_ROWS = (LikeQuery, PreferenceQuery, RowsQuery)
"""Queries that no model embeds."""
Query = str | MediaQuery | LikeQuery | PreferenceQuery | RowsQuery


OneQuery = str | bytes | Path | MediaQuery | LikeQuery | PreferenceQuery | Pixels
"""What a program can search for; see `as_query`."""


def as_query(value: object) -> Query:
    """What a program searches for.

    Args:
        value: a text; a pathlib.Path of a file; bytes of a file; a PIL image; an array of pixels, uint8[height, width]
            or uint8[height, width, 3]; or a query.

    Raises:
        ConfigurationError: if it is nothing of these.
    """
    if isinstance(value, (str, MediaQuery, *OF_ROWS)):
        return value
    if isinstance(value, Path):
        return MediaQuery(str(value))
    if not is_in_memory(value):
        raise ConfigurationError(
            f"the query is of type {type(value).__name__}, not a text",
            "name a string; or a Path, bytes, a PIL image or an array of pixels for a corpus of images",
        )
    return MediaQuery(bytes_of(value))


def from_options(preference: PreferenceQuery | None = None, **media: str) -> tuple[str, Query | None]:
    """The query that an option of `search` names, and that option; "" and None if there is none.

    Args:
        preference: what --like, --not-like and --history name.
        media: a file for each modality, "" for none.

    Raises:
        ConfigurationError: if there are several.
    """
    found: dict[str, Query] = {f"--{name}": MediaQuery(file, Modality(name)) for name, file in media.items() if file}
    if preference is not None:
        alone = len(preference.like) == 1 and preference == PreferenceQuery(preference.like)
        found["--like" if preference.like else "--history"] = LikeQuery(preference.like[0]) if alone else preference
    if len(found) > 1:
        raise ConfigurationError(f"{' and '.join(found)} are both queries", "name one query")
    return next(iter(found.items()), ("", None))


def shown(query: Query) -> str:
    """A query in a message."""
    if not isinstance(query, str):
        return str(query)
    return repr(query if len(query) <= _SHOWN_CHARACTERS else query[: _SHOWN_CHARACTERS - 1] + "…")
