"""Contents of each field in the sampled records of files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from transforms.read.head import FileSample, flat, is_dated
from transforms.read.metadata_value import INT64
from transforms.read.rejected_item import BadUtf8

MOSTLY = 0.95
"""Share of the records that must have the main text and the id; the rest is broken, and each costs itself."""
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_ISO_DATE = re.compile(r"(\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?)(Z|[+-]\d{2}:?\d{2})?")
_TRUTHS = {"true", "false", "yes", "no"}


@dataclass
class SampledField:
    """Contents of one field in the sampled records.

    Attributes:
        present: records that have the field, null or not.
        values: that are not null, nor empty in CSV.
        kinds: of those values: int, float, bool, string, or what else they are.
    """

    name: str
    present: int = 0
    values: list[Any] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def texts(self) -> list[str]:
        return [value for value in self.values if type(value) is str]

    @property
    def is_text(self) -> bool:
        return bool(self.values) and len(self.texts) >= MOSTLY * len(self.values)

    @property
    def type(self) -> str | None:
        """The metadata type that all values have; None for mixed and other ones."""
        kinds = set(self.kinds)
        if kinds == {"int", "float"}:
            return "float"
        if kinds == {"date"} or kinds == {"date", "string"}:
            return "string"
        return next(iter(kinds)) if len(kinds) == 1 and kinds <= {"int", "float", "bool", "string"} else None

    @property
    def first_date(self) -> str:
        """The first day, if all values are dates or times that sort as text: ISO 8601, of one form and time zone."""
        found = [_ISO_DATE.fullmatch(str(value).strip()) for value in self.values]
        forms = {(re.sub(r"\d", "0", one[1]), one[2]) for one in found if one}
        return min(str(value).strip() for value in self.values)[:10] if all(found) and len(forms) == 1 else ""

    @property
    def mean_length(self) -> float:
        return sum(map(len, self.texts)) / len(self.texts) if self.is_text else 0.0


def sampled_fields(samples: Sequence[FileSample]) -> dict[str, SampledField]:
    """Contents of each field in the samples, by its dotted name."""
    columns: dict[str, SampledField] = {}
    for sample in samples:
        is_csv = sample.file.format == "csv"
        texts: dict[str, list[str]] = {}
        for record in sample.records:
            for name, value in flat(record):
                if not name:
                    continue
                column = columns.setdefault(name, SampledField(name))
                column.present += 1
                if value is None or isinstance(value, BadUtf8) or (is_csv and value == ""):
                    continue
                column.values.append(value)
                if is_csv:
                    texts.setdefault(name, []).append(value.strip())
                else:
                    dated = name in sample.kinds and is_dated(sample.kinds[name])
                    column.kinds["date" if dated else _kind(value)] += 1
        for name, values in texts.items():  # a column of a CSV file has one type, whatever its values would be alone
            columns[name].kinds[csv_kind(values)] += len(values)
    for name, column in columns.items():  # a field that is a value here and an object there
        if column.values and any(other.startswith(f"{name}.") for other in columns):
            column.kinds["an object"] += 1
    return columns


def _kind(value: Any) -> str:
    if type(value) is int and value not in INT64:
        return "a whole number over 64 bits"
    kinds = {
        bool: "bool",
        int: "int",
        float: "float",
        Decimal: "float",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
    }
    return "string" if isinstance(value, str) else kinds.get(type(value), type(value).__name__)


def csv_kind(values: Sequence[str]) -> str:
    """The type that all values of a CSV column can be read as."""
    if all(_WHOLE.fullmatch(value) for value in values):
        return "int"
    if all(NUMBER.fullmatch(value) for value in values):
        return "float"
    if all(value.lower() in _TRUTHS for value in values):
        return "bool"
    return "date" if all(DATE.fullmatch(value) for value in values) else "string"
