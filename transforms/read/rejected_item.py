"""The rejection of one record, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence

MAX_REASON_CHARS = 200


class BadUtf8:
    """Replaces a text value that is not valid UTF-8 in a record; `offset` counts bytes within the value."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset


class RejectedItemError(Exception):
    """A record is not an item. Args: error (CamelCase, countable), reason (a sentence), item_id where it is known."""

    def __init__(self, error: str, reason: str, item_id: str | None = None) -> None:
        super().__init__(error, reason, item_id)
        self.error = error
        self.reason = reason
        self.item_id = item_id


def shown(value: object, chars: int = 60) -> str:
    """A value as it appears in a reason: its beginning, printable.

    >>> shown("a" * 100, 5)
    "'aaaaa'..."
    """
    if isinstance(value, str):
        return f"{value[:chars]!a}..." if len(value) > chars else ascii(value)
    text = ascii(value)
    return text if len(text) <= chars else f"{text[:chars]}..."


def shown_names(names: Sequence[str], most: int = 30, chars: int = 60) -> str:
    """Names of fields as they appear in a message, which stays readable where a line of text was taken for a header.

    >>> shown_names(["id", "title", "text"], most=2, chars=4)
    'id, titl..., and 1 more'
    """
    first = [f"{name[:chars]}..." if len(name) > chars else name for name in names[:most]]
    return ", ".join(first) + (f", and {len(names) - most} more" if len(names) > most else "")


def check_text(text: str, name: str, item_id: str | None) -> None:
    """Refuses text that no database accepts.

    Raises:
        RejectedItemError: `NulByte` or `InvalidUtf8` (a lone surrogate), with the offset in characters.
    """
    if "\x00" in text:
        raise RejectedItemError("NulByte", f"{name} has a NUL character at offset {text.index(chr(0))}", item_id)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RejectedItemError(
                "InvalidUtf8",
                f"{name} has a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}",
                item_id,
            ) from error


def bad_utf8(what: str, value: BadUtf8) -> str:
    return f"{what} is not valid UTF-8 at byte {value.offset}: 0x{value.data[value.offset]:02x}"
