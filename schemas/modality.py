"""The modalities of items, and of a corpus."""

from __future__ import annotations

from enum import StrEnum

ROW_MODALITY = "modality"
"""Column of each row of a corpus of several modalities: its own."""


class Modality(StrEnum):
    """The modality of an item, or of a corpus whose items all have it."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    MIXED = "mixed"
    """Of a corpus alone: each item has its own, and so has each row, in the column `modality`."""
    RECORD = "record"
    """Of a corpus alone: each item has texts and media, which different vectors of its row describe."""

    @property
    def is_media(self) -> bool:
        """Whether all items are files or bytes that the embedding step opens, instead of text."""
        return self not in (Modality.TEXT, Modality.MIXED, Modality.RECORD)

    @property
    def has_rows_of_several(self) -> bool:
        """Whether tokens, images and seconds are in one corpus: they don't add up, so that its rows are counted."""
        return self in (Modality.MIXED, Modality.RECORD)

    @property
    def is_timed(self) -> bool:
        """Whether items have a length in seconds."""
        return self in (Modality.AUDIO, Modality.VIDEO)

    @property
    def noun(self) -> str:
        """One item, for messages."""
        nouns = {"text": "text", "image": "image", "audio": "recording", "video": "film", "record": "record"}
        return nouns.get(self.value, "item")

    @property
    def unit(self) -> str:
        """What is counted of it: tokens of texts, images, seconds of recordings and films, else rows."""
        return "rows" if self.has_rows_of_several else {"text": "tokens", "image": "images"}.get(self.value, "seconds")

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
