"""A record's value as the value of a typed metadata column, or the reason for its rejection."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from schemas.config import MetadataField
from transforms.read.rejected_item import BadUtf8, RejectedItemError, bad_utf8, check_text, shown

INT64 = range(-(1 << 63), 1 << 63)
EXACT_FLOAT = 1 << 53
_TRUE_FALSE = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}
Convert = Callable[[Any, str], Any]


def converter(name: str, field: MetadataField) -> Convert:
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
        return RejectedItemError("MetadataType", bad_utf8(f"The metadata field {name!r}", value), item_id)
    return RejectedItemError(
        "MetadataType", f"The metadata field {name!r} does not fit its type {field.type}: {shown(value)}", item_id
    )
