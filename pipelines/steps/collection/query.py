"""What a search looks for: a text, a media file, or the rows that are like a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    """A row of the collection, by its id; its vector is searched for, and it is not among the hits."""

    row_id: str

    def __str__(self) -> str:
        return f"the row {self.row_id}"


Query = str | MediaQuery | LikeQuery


OneQuery = str | bytes | Path | MediaQuery | LikeQuery | Pixels
"""What a program can search for; see `as_query`."""


def as_query(value: object) -> Query:
    """What a program searches for.

    Args:
        value: a text; a pathlib.Path of a file; bytes of a file; a PIL image; an array of pixels, uint8[height, width]
            or uint8[height, width, 3]; or a query.

    Raises:
        ConfigurationError: if it is nothing of these.
    """
    if isinstance(value, (str, MediaQuery, LikeQuery)):
        return value
    if isinstance(value, Path):
        return MediaQuery(str(value))
    if not is_in_memory(value):
        raise ConfigurationError(
            f"the query is of type {type(value).__name__}, not a text",
            "name a string; or a Path, bytes, a PIL image or an array of pixels for a corpus of images",
        )
    return MediaQuery(bytes_of(value))


def from_options(like: str = "", **media: str) -> tuple[str, Query | None]:
    """The query that an option of `search` names, and that option; "" and None if there is none.

    Args:
        media: a file for each modality, "" for none.

    Raises:
        ConfigurationError: if there are several.
    """
    found: dict[str, Query] = {f"--{name}": MediaQuery(file, Modality(name)) for name, file in media.items() if file}
    if like:
        found["--like"] = LikeQuery(like)
    if len(found) > 1:
        raise ConfigurationError(f"{' and '.join(found)} are both queries", "name one query")
    return next(iter(found.items()), ("", None))


def shown(query: Query) -> str:
    """A query in a message."""
    if not isinstance(query, str):
        return str(query)
    return repr(query if len(query) <= _SHOWN_CHARACTERS else query[: _SHOWN_CHARACTERS - 1] + "…")
