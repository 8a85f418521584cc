"""The modalities of a corpus."""

from __future__ import annotations

from enum import StrEnum


class Modality(StrEnum):
    """The modality of a chunk."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"

    @property
    def is_media(self) -> bool:
        """Whether items are files or bytes that the embedding step opens, instead of text."""
        return self is not Modality.TEXT

    @property
    def noun(self) -> str:
        """One item, for messages."""
        return {"text": "text", "image": "image", "audio": "recording", "video": "film"}[self.value]

    @property
    def unit(self) -> str:
        """What is counted of it: tokens of texts, images, or seconds of recordings and films."""
        return {"text": "tokens", "image": "images", "audio": "seconds", "video": "seconds"}[self.value]

    @property
    def per_unit(self) -> int:
        """What `Encoded.amount` counts per unit: milliseconds per second, else 1."""
        return 1000 if self.unit == "seconds" else 1


def shown_rate(rate: float) -> str:
    """A rate for people: whole from 10 on.

    >>> shown_rate(0.2345), shown_rate(1234.5)
    ('0.23', '1,234')
    """
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
