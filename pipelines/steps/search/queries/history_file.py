"""The history of a person's choices, as a file: what was liked, how much, and when."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.steps.search.queries.query import Preference
from schemas.errors import ConfigurationError

_DAY_S = 86_400.0


def read_history(path: str | Path, half_life: float | None = None) -> tuple[Preference, ...]:
    """The entries of a history.

    Args:
        path: a file of JSON lines or, where it ends in .csv, of comma-separated values with a header. Each entry has an
            `id`, of a row or an item; a `weight` if it does not count 1, negative for what was disliked; and a `time`:
            a date or time in ISO 8601, in UTC unless it has an offset, or a number of seconds.
        half_life: days. The weight of an entry halves with each such time that it is older than the newest entry; the
            clock does not matter. None: the time does not count.

    Raises:
        ConfigurationError: if the file can't be read, has no entry, or an entry is not valid; it names the line.
    """
    file = Path(path)
    if half_life is not None and not (math.isfinite(half_life) and half_life > 0):
        raise ConfigurationError(f"--half-life is {half_life}", "name a number of days above 0")
    entries = []
    for line, values in _records(file):
        where = f"{file} line {line}"
        entries.append((_id(values, where), _weight(values, where), _time(values, where), where))
    if not entries:
        raise ConfigurationError(f"{file} has no entry", 'write lines such as {"id": "docs/a.md"}')
    if half_life is None:
        return tuple(Preference(one, weight) for one, weight, _, _ in entries)
    newest = -math.inf
    for _, _, time, where in entries:
        if time is None:
            raise ConfigurationError(f"{where} has no time, and --half-life needs one", "add `time`, or leave it out")
        newest = max(newest, time)
    return tuple(
        Preference(one, weight * 0.5 ** ((newest - time) / _DAY_S / half_life))
        for one, weight, time, _ in entries
        if time is not None
    )


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries, with the numbers of their lines."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix.lower() == ".csv":
                reader = csv.DictReader(lines, strict=True)
                for values in reader:
                    yield reader.line_num, values
                return
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line)
                except ValueError as error:
                    raise ConfigurationError(
                        f"{file} line {number} is not valid JSON: {error}", "write one JSON object a line"
                    ) from None
                if not isinstance(values, dict):
                    raise ConfigurationError(
                        f"{file} line {number} is not a JSON object", 'write lines such as {"id": "docs/a.md"}'
                    )
                yield number, values
    except OSError as error:
        raise ConfigurationError(f"can't read {file}: {error.strerror or error}", "name a file of a history") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8: {error}", "write it as UTF-8") from None
    except csv.Error as error:
        raise ConfigurationError(
            f"{file} is not valid CSV: {error}", "write a header with id, weight and time"
        ) from None


def _id(values: dict[str, Any], where: str) -> str:
    given = values.get("id")
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given:
        raise ConfigurationError(f"{where} has no id", "name the id of a row or an item under `id`")
    return given


def _weight(values: dict[str, Any], where: str) -> float:
    given = values.get("weight")
    if given is None or given == "":
        return 1.0
    try:
        weight = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not math.isfinite(weight):
        raise ConfigurationError(f"{where}: the weight {given!r} is not a finite number", "write a number, such as 1")
    return weight


def _time(values: dict[str, Any], where: str) -> float | None:
    """Seconds since 1970, or None."""
    given = values.get("time")
    if given is None or given == "":
        return None
    try:
        seconds = math.nan if isinstance(given, bool) else float(given)
        if math.isfinite(seconds):
            return seconds
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        time = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{where}: the time {given!r} is not a date", "write it as 2026-11-26 or 2026-11-26T10:00:00Z"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
