"""From a record (a dict) to an item: its id, its text and its typed metadata, or one reason for its rejection."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from schemas.config import Corpus, HashedId, MetadataField
from schemas.identity import digest

MAX_REASON_CHARS = 200
INT64 = range(-(1 << 63), 1 << 63)
EXACT_FLOAT = 1 << 53
MISSING: Any = object()
"""Stands for the value of a field that a record does not have."""
_HASHED_TYPES = (str, int, float, bool, list, dict, type(None))
_PARTITION = re.compile(r"(?:^|/)([^/=]+)=([^/]*)(?=/)")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_TRUE_FALSE = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}


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


def lookup(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of one inside an object by a dotted name; `MISSING` where there is none.

    A field whose own name has the dots takes precedence. Inside a null object each field is null.

    >>> lookup({"doc": {"text": "a"}}, "doc.text"), lookup({"doc": {"text": "a"}, "doc.text": "b"}, "doc.text")
    ('a', 'b')
    """
    if name in record:
        return record[name]
    found: Any = MISSING
    at = name.find(".")
    while at >= 0:
        inside = record.get(name[:at], MISSING)
        if isinstance(inside, Mapping):
            value = lookup(inside, name[at + 1 :])
            if value is not MISSING:
                return value
        elif inside is None:
            found = None
        at = name.find(".", at + 1)
    return found


def partitions_of(uri: str) -> dict[str, str | None]:
    """The hive partitions of a path: its folders named `key=value`; the last one of a duplicate key counts.

    >>> partitions_of("data/year=2024/lang=pt%2FBR/part-0.jsonl")
    {'year': '2024', 'lang': 'pt/BR'}
    """
    found = {unquote(key): unquote(value) for key, value in _PARTITION.findall(uri)}
    return {key: None if value == _NULL_PARTITION else value for key, value in found.items()}


class ItemChecker:
    """Turns records into items as the configuration of a corpus asks.

    Args:
        corpus: which fields are id, content and metadata.
        uri: of the file that the records are from; its folders may be partitions.
    """

    def __init__(self, corpus: Corpus, uri: str = "") -> None:
        self._id = corpus.id.hash if isinstance(corpus.id, HashedId) else corpus.id
        self._content = tuple(corpus.content)
        partitions = partitions_of(uri)
        self._metadata: list[tuple[str | None, Any, Convert]] = []
        for name, field in corpus.metadata.items():
            if field.partition is not None:
                # "" is the value in the path, and a string like any other.
                self._metadata.append((None, partitions.get(field.partition), _converter(name, field)))
            else:
                self._metadata.append((field.source or name, None, _converter(name, field)))

    def __call__(self, record: Mapping[str, Any]) -> tuple[str, str, tuple[Any, ...]]:
        """Gives (item_id, content, metadata values in the order of the configuration).

        Raises:
            RejectedItemError: if the record is not an item.
        """
        item_id = self._item_id(record)
        texts: list[str] = []
        for name in self._content:
            text = record.get(name, MISSING)
            if type(text) is not str:
                text = _checked_text(name, lookup(record, name), item_id)
            if text and not text.isspace():
                texts.append(text)
        if not texts:
            raise RejectedItemError("EmptyText", f"{_fields(self._content)} empty or whitespace", item_id)
        content = texts[0] if len(texts) == 1 else "\n\n".join(texts)
        if "\x00" in content or not content.isascii():
            for name in self._content:
                check_text(lookup(record, name) or "", f"The field {name!r}", item_id)
        return item_id, content, self.metadata(record, item_id)

    def metadata(self, record: Mapping[str, Any], item_id: str) -> tuple[Any, ...]:
        """The metadata values of a record, in the order of the configuration; () where it names none.

        Raises:
            RejectedItemError: if a value does not fit its column.
        """
        if not self._metadata:
            return ()
        values = []
        for name, fixed, convert in self._metadata:
            value = fixed
            if name is not None:
                value = record.get(name, MISSING)
                if value is MISSING:
                    value = lookup(record, name) if "." in name else None
            values.append(convert(None if value is MISSING else value, item_id))
        return tuple(values)

    def known_id(self, record: Mapping[str, Any]) -> str | None:
        """The id of a broken record, if it can be found."""
        try:
            return self._item_id(record)
        except RejectedItemError:
            return None

    def _item_id(self, record: Mapping[str, Any]) -> str:
        if not isinstance(self._id, str):
            return _hashed_id(self._id, record)
        value = record.get(self._id, MISSING)
        if type(value) is str and value and value.isascii() and "\x00" not in value:
            return value
        item_id = _checked_id(self._id, lookup(record, self._id))
        check_text(item_id, f"The id field {self._id!r}", None)
        return item_id


def _hashed_id(names: list[str], record: Mapping[str, Any]) -> str:
    """32 hex digits from the values of some fields; equal values give equal digits."""
    values = []
    for name in names:
        value = lookup(record, name)
        if value is MISSING:
            raise RejectedItemError("MissingField", f"There is no field {name!r}, which corpus.id.hash names")
        if isinstance(value, BadUtf8):
            raise RejectedItemError("InvalidUtf8", _bad_utf8(f"The field {name!r}", value))
        if not isinstance(value, _HASHED_TYPES):
            raise RejectedItemError(
                "WrongType",
                f"The field {name!r}, which corpus.id.hash names, is {_kind(value)}, which no id is made from",
            )
        values.append(value)
    if all(value is None or value == "" for value in values):
        raise RejectedItemError("EmptyId", f"{_fields(tuple(names))} null or empty, and so no id can be made from it")
    try:
        return digest(values, 32)
    except (TypeError, ValueError) as error:  # a date inside a list
        raise RejectedItemError("WrongType", f"No id can be made from {', '.join(names)}: {error}") from error


def _fields(names: tuple[str, ...]) -> str:
    return f"The field {names[0]!r} is" if len(names) == 1 else f"The fields {', '.join(map(repr, names))} are all"


def _checked_id(name: str, value: object) -> str:
    if value is MISSING:
        raise RejectedItemError("MissingField", f"There is no field {name!r}, which is corpus.id")
    if value is None or value == "":
        raise RejectedItemError("EmptyId", f"The id field {name!r} is {'null' if value is None else 'empty'}")
    if isinstance(value, BadUtf8):
        raise RejectedItemError("InvalidUtf8", _bad_utf8(f"The id field {name!r}", value))
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise RejectedItemError(
            "WrongType", f"The id field {name!r} is {_kind(value)}, not a string or a whole number: {shown(value)}"
        )
    check_text(value, f"The id field {name!r}", None)
    return value


def _checked_text(name: str, value: object, item_id: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if value is MISSING:
        raise RejectedItemError("MissingField", f"There is no field {name!r}, which corpus.content names", item_id)
    if isinstance(value, BadUtf8):
        raise RejectedItemError("InvalidUtf8", _bad_utf8(f"The field {name!r}", value), item_id)
    raise RejectedItemError(
        "WrongType", f"The content field {name!r} is {_kind(value)}, not a string: {shown(value)}", item_id
    )


def _bad_utf8(what: str, value: BadUtf8) -> str:
    return f"{what} is not valid UTF-8 at byte {value.offset}: 0x{value.data[value.offset]:02x}"


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)


Convert = Callable[[Any, str], Any]


def _converter(name: str, field: MetadataField) -> Convert:
    """Returns a function that checks a value of any format and converts it to the column's type.

    A text that reads as a number or truth value is one, blank text is null except for strings, and a string column
    accepts numbers, truth values and dates as text: other formats may give for one value what CSV gives for all.
    """

    def string(value: Any, item_id: str) -> str | None:
        if type(value) is not str:
            if value is None:
                return None
            text = _as_text(value)
            if text is None:
                raise _unfit(name, field, value, item_id)
            value = text
        if not value.isascii() or len(value) > field.max_bytes or "\x00" in value:
            _check_string(name, field, value, item_id)
        return value  # type: ignore[no-any-return]

    def parsed(value: Any, item_id: str) -> Any:
        if value is None:
            return None
        if type(value) is str:
            text = value.strip()
            if not text:
                return None
            try:
                found = fitting(_parse(text, field.type))
            except ValueError:
                found = None
        else:
            found = fitting(value)
        if found is None:
            raise _unfit(name, field, value, item_id)
        return found

    if field.type == "string":
        return string
    fitting = {"int": _whole_number, "float": _number, "bool": _truth}[field.type]
    return parsed


def _as_text(value: Any) -> str | None:
    """A number, truth value or date as CSV and JSON would write it; None if it is something else."""
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, (datetime.date, datetime.time)):  # a date and time is a date as well
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if type(value) in (int, float) else None


def _whole_number(value: Any) -> int | None:
    if type(value) is int:
        return value if value in INT64 else None
    if type(value) is float:  # programs without nullable integers store them so
        return int(value) if value.is_integer() and abs(value) <= EXACT_FLOAT else None
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value) if int(value) in INT64 else None
    return None


def _number(value: Any) -> float | None:
    if type(value) is float:
        return value if abs(value) < float("inf") else None  # false for NaN
    if type(value) is int:
        return float(value) if value in INT64 else None
    return float(value) if isinstance(value, Decimal) and value.is_finite() else None


def _truth(value: Any) -> bool | None:
    if type(value) in (int, float) and value in (0, 1):
        return bool(value)
    return value if type(value) is bool else None


def _parse(text: str, kind: str) -> int | float | bool:
    if kind == "bool":
        if text.lower() not in _TRUE_FALSE:
            raise ValueError(text)
        return _TRUE_FALSE[text.lower()]
    if "_" in text:  # Python's own grouping, which CSV does not have
        raise ValueError(text)
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            pass  # 5.0, as programs without nullable integers write it
    return float(text)


def _check_string(name: str, field: MetadataField, value: str, item_id: str) -> None:
    try:
        check_text(value, f"The metadata field {name!r}", item_id)
    except RejectedItemError as error:
        raise RejectedItemError("MetadataType", error.reason, item_id) from error
    size = len(value.encode())
    if size > field.max_bytes:
        raise RejectedItemError(
            "MetadataTooLong",
            f"The metadata field {name!r} has {size} bytes, over its max_bytes {field.max_bytes}: {shown(value, 40)}",
            item_id,
        )


def _unfit(name: str, field: MetadataField, value: object, item_id: str) -> RejectedItemError:
    if isinstance(value, BadUtf8):
        return RejectedItemError("MetadataType", _bad_utf8(f"The metadata field {name!r}", value), item_id)
    return RejectedItemError(
        "MetadataType", f"The metadata field {name!r} does not fit its type {field.type}: {shown(value)}", item_id
    )
