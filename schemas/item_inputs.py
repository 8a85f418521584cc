"""The inputs of an item of which vectors describe different parts: texts of some of its fields, and its media.

Such an item's `@content` is all of its inputs as text, so that its digests cover each of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from schemas.modality import Modality

_SEPARATORS = (",", ":")


class Input(NamedTuple):
    """What an encoder embeds of an item.

    Attributes:
        fields: of the record: of a text those that are joined, of media the one that has or names them.
        modality: of the input.
    """

    fields: tuple[str, ...]
    modality: Modality

    @property
    def is_text(self) -> bool:
        """Whether it is a text."""
        return self.modality is Modality.TEXT

    def __str__(self) -> str:
        return ", ".join(self.fields) or "media"


class ItemContent(NamedTuple):
    """The content of an item with several inputs.

    Attributes:
        texts: of each field of `corpus.content`; "" where it is null.
        media: version of its media, which changes if their bytes do; "" without media.
    """

    texts: Mapping[str, str]
    media: str = ""

    def text(self, fields: Iterable[str]) -> str:
        """The texts of some fields, joined by a blank line, without those that are empty."""
        return joined(self.texts[name] for name in fields)

    def as_text(self) -> str:
        """The content as `@content` holds it.

        >>> ItemContent({"title": "Red shoe"}, "v1").as_text()
        '[{"title":"Red shoe"},"v1"]'
        """
        return json.dumps([self.texts, self.media], separators=_SEPARATORS, ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> ItemContent:
        """The inverse of `as_text`."""
        return cls(*json.loads(text))

    def with_media(self, version: str) -> ItemContent:
        """The same texts with media of a version."""
        return self._replace(media=version)


class ChunkInputs(NamedTuple):
    """What encoders read of the one chunk of such an item: the column `@inputs`, as text.

    Attributes:
        texts: see `ItemContent`.
        start, end: seconds of a recording or film that are embedded; 0 of others.
    """

    texts: Mapping[str, str]
    start: float = 0.0
    end: float = 0.0

    def as_text(self) -> str:
        """The inputs as the column holds them."""
        return json.dumps(self, separators=_SEPARATORS, ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> ChunkInputs:
        """The inverse of `as_text`."""
        return cls(*json.loads(text))


def joined(texts: Iterable[str]) -> str:
    """Texts joined by a blank line, without those that are empty or white space.

    >>> joined(["Red shoe", " ", "For summer"])
    'Red shoe\\n\\nFor summer'
    """
    return "\n\n".join(text for text in texts if text and not text.isspace())


def facts(inputs: Mapping[str, Input]) -> dict[str, Any]:
    """What each vector describes, as plain JSON values: part of what determines a row."""
    return {name: [str(one.modality), *one.fields] for name, one in inputs.items()}
