"""Pairs of rows or items that a user has labelled as the same or different."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from schemas.errors import ConfigurationError
from transforms.read.rejected_item import shown_names

COLUMNS = ("a", "b", "same")
YES, NO = ("1", "true", "yes"), ("0", "false", "no")


class LabelledPair(NamedTuple):
    """Ids of two rows or items, and whether they are of the same thing."""

    a: str
    b: str
    same: bool


def read_pairs(path: Path) -> list[LabelledPair]:
    """The pairs of a CSV file with the columns a, b and same (1 or 0, true or false, yes or no).

    Raises:
        ConfigurationError: if it can't be read, with the line, or has no pair of one kind.
    """
    place = f"--pairs: {path}"
    remedy = "write lines such as a.jpg,b.jpg,1 under the header a,b,same"
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            names = reader.fieldnames or []
            if missing := [name for name in COLUMNS if name not in names]:
                raise ConfigurationError(f"{place} has no column {missing[0]}; it has {shown_names(names)}", remedy)
            pairs = [_pair(record, f"{place}, line {reader.line_num}", remedy) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(
            f"{place} can't be read: {getattr(error, 'strerror', None) or error}", remedy
        ) from error
    for same, word in ((True, "the same thing"), (False, "different things")):
        if not any(pair.same is same for pair in pairs):
            raise ConfigurationError(f"{place} has no pair of {word}", "both kinds are needed to measure errors")
    return pairs


def _pair(record: dict[str, str | None], place: str, remedy: str) -> LabelledPair:
    a, b, same = ((record[name] or "").strip() for name in COLUMNS)
    if not a or not b or a == b:
        raise ConfigurationError(f"{place}: {a!r} and {b!r} are not two ids", remedy)
    if same.lower() not in (*YES, *NO):
        raise ConfigurationError(f"{place}: same is {same!r}, not 1 or 0", remedy)
    return LabelledPair(a, b, same.lower() in YES)
