"""What a search looks for: a text, a media file, or the rows that are like a row."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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


class Pixels(Protocol):
    """A PIL image, or an array of pixels."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


OneQuery = str | bytes | Path | MediaQuery | LikeQuery | Pixels
"""What a program can search for; see `as_query`."""


def is_one(value: object) -> bool:
    """Whether a value is one query, and not several."""
    return not isinstance(value, Iterable) or (
        isinstance(value, (str, bytes, bytearray, memoryview, Mapping)) or hasattr(value, "__array_interface__")
    )


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
    if isinstance(value, (bytes, bytearray, memoryview)):
        return MediaQuery(bytes(value))
    if not hasattr(value, "__array_interface__"):
        raise ConfigurationError(
            f"the query is of type {type(value).__name__}, not a text",
            "name a string; or a Path, bytes, a PIL image or an array of pixels for a corpus of images",
        )
    return MediaQuery(_png(value))


def _png(value: Any) -> bytes:
    import numpy as np
    from PIL import Image

    if not hasattr(value, "save"):
        array = np.asarray(value)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
            raise ConfigurationError(
                f"the query is an array {array.dtype}{list(array.shape)}",
                "give pixels as uint8[height, width], or with 3 or 4 numbers for each pixel",
            )
        value = Image.fromarray(array)
    stream = io.BytesIO()
    value.save(stream, "PNG")
    return stream.getvalue()


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
