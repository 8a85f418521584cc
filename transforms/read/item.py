"""From a record (a dict) to an item: its id, its text and its typed metadata, or one reason for its rejection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from schemas.config import Corpus, HashedId
from schemas.identity import digest
from schemas.item_inputs import ItemContent, joined
from transforms.read.metadata_value import Convert, converter
from transforms.read.rejected_item import BadUtf8, RejectedItemError, bad_utf8, check_text, shown

MISSING: Any = object()
"""Stands for the value of a field that a record does not have."""
_HASHED_TYPES = (str, int, float, bool, list, dict, type(None))
_PARTITION = re.compile(r"(?:^|/)([^/=]+)=([^/]*)(?=/)")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


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
        self._inputs = {name: one.fields for name, one in corpus.inputs.items() if one.is_text}
        partitions = partitions_of(uri)
        self._metadata: list[tuple[str | None, Any, Convert]] = []
        for name, field in corpus.metadata.items():
            if field.partition is not None:
                # "" is the value in the path, and a string like any other.
                self._metadata.append((None, partitions.get(field.partition), converter(name, field)))
            else:
                self._metadata.append((field.source or name, None, converter(name, field)))

    def __call__(self, record: Mapping[str, Any]) -> tuple[str, str, tuple[Any, ...]]:
        """Gives (item_id, content, metadata values in the order of the configuration).

        Raises:
            RejectedItemError: if the record is not an item.
        """
        item_id = self.item_id(record)
        content = self.inputs(record, item_id).as_text() if self._inputs else self._text(record, item_id)
        return item_id, content, self.metadata(record, item_id)

    @property
    def has_text_inputs(self) -> bool:
        """Whether vectors describe different inputs of an item, and some of these are texts."""
        return bool(self._inputs)

    def inputs(self, record: Mapping[str, Any], item_id: str) -> ItemContent:
        """The texts of a record of which vectors describe different fields.

        Raises:
            RejectedItemError: if an encoder has nothing to embed, or a field is not text.
        """
        texts = {name: _checked_text(name, lookup(record, name), item_id) for name in self._content}
        for vector, fields in self._inputs.items():
            if not joined(texts[name] for name in fields):
                reason = f"{_fields(fields)} empty or whitespace, and the vector {vector!r} is made of it"
                raise RejectedItemError("EmptyText", reason, item_id)
        for name, text in texts.items():
            check_text(text, f"The field {name!r}", item_id)
        return ItemContent(texts)

    def _text(self, record: Mapping[str, Any], item_id: str) -> str:
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
        return content

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
            return self.item_id(record)
        except RejectedItemError:
            return None

    def item_id(self, record: Mapping[str, Any]) -> str:
        """The id of a record.

        Raises:
            RejectedItemError: if it has none that is valid.
        """
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
            raise RejectedItemError("InvalidUtf8", bad_utf8(f"The field {name!r}", value))
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
        raise RejectedItemError("InvalidUtf8", bad_utf8(f"The id field {name!r}", value))
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
        raise RejectedItemError("InvalidUtf8", bad_utf8(f"The field {name!r}", value), item_id)
    raise RejectedItemError(
        "WrongType", f"The content field {name!r} is {_kind(value)}, not a string: {shown(value)}", item_id
    )


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)
