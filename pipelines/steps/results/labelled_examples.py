"""Labels and labelled examples, as a user names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from schemas.errors import ConfigurationError
from transforms.support.storage.named_file import lines_of, read_named

PLACE = "{}"


class Example(NamedTuple):
    """A row, an item or a text with its label; `key` is "id" or "text"."""

    key: str
    value: str
    label: str


def label_texts(labels: Sequence[str], template: str) -> dict[str, str]:
    """The text of each label, by its name.

    Args:
        labels: each a name, or name=text.
        template: with "{}" where the text goes, or "".

    Raises:
        ConfigurationError: fewer than two labels, a blank or repeated one, or a template without "{}".

    >>> label_texts(["dog", "cat=a house cat"], "a photo of {}")
    {'dog': 'a photo of dog', 'cat': 'a photo of a house cat'}
    """
    if template and PLACE not in template:
        raise ConfigurationError(
            f"--template: {template!r} does not have {PLACE}, where the label goes",
            f"for example --template 'a photo of {PLACE}'",
        )
    found: dict[str, str] = {}
    for one in labels:
        name, _, text = (part.strip() for part in one.partition("="))
        if not name or ("=" in one and not text):
            raise ConfigurationError(f"--label: {one!r} is blank", "write --label NAME or --label NAME=TEXT")
        if name in found:
            raise ConfigurationError(f"--label: {name!r} is named twice", "name each label once")
        found[name] = template.replace(PLACE, text or name) if template else text or name
    _check_enough(list(found), "--label")
    return found


def read_examples(path: Path) -> list[Example]:
    """Labelled examples, one JSON object a line: {"id": ..., "label": ...} or {"text": ..., "label": ...}.

    Ids and labels may be whole numbers.

    Raises:
        ConfigurationError: if it can't be read, with the line, or has fewer than two labels or an example twice.
    """
    found: list[Example] = []
    seen: dict[tuple[str, str], int] = {}
    for number, line in lines_of(read_named(str(path), "--examples")):
        example = _example(line, f"--examples: {path}, line {number}")
        if (before := seen.get(example[:2])) is not None:
            raise ConfigurationError(
                f"--examples: {path}, line {number}: {example.value!r} is in line {before} too", "keep one of the lines"
            )
        seen[example[:2]] = number
        found.append(example)
    _check_enough(list(dict.fromkeys(one.label for one in found)), f"--examples: {path}")
    return found


def _example(line: bytes, place: str) -> Example:
    remedy = 'write {"id": "a", "label": "x"} or {"text": "some text", "label": "x"}'
    try:
        record: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{place} is not JSON: {error}", remedy) from error
    if not isinstance(record, dict) or ("id" in record) == ("text" in record):
        raise ConfigurationError(f"{place} is not an object with either id or text, and label", remedy)
    key = "id" if "id" in record else "text"
    for name in (key, "label"):
        value = record.get(name)
        if name != "text" and isinstance(value, int) and not isinstance(value, bool):
            record[name] = value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"{place}: {name} is {value!r}, not a text", remedy)
    return Example(key, record[key], record["label"].strip())


def _check_enough(labels: Sequence[str], place: str) -> None:
    if len(labels) < 2:
        named = f"one label, {labels[0]!r}" if labels else "no label"
        raise ConfigurationError(f"{place} has {named}, and two are the fewest to choose from", "name another label")
