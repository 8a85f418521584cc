"""Queries and the items that are known to answer them, from the files of BEIR and TREC."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import orjson

from schemas.errors import ConfigurationError
from schemas.modality import Modality
from transforms.support.storage.named_file import lines_of, read_named

QUERIES, TRUTH = "--queries", "--truth"
MOST_GRADE = 1_000
"""trec_eval counts the items of each grade up to the highest: its memory grows with it, and 2^31 would be negative."""
_IDS = ("_id", "id", "query_id", "qid")
Grades = Mapping[str, int]
"""The grades of a query's items, by item id; 0 is not relevant."""


@dataclass(frozen=True)
class LoggedQuery:
    """A query of a file.

    Attributes:
        content: a text, or the path of a media file.
        modality: what `content` is.
        slice: the part of the queries that it belongs to; "" for none.
    """

    id: str
    content: str
    modality: Modality = Modality.TEXT
    slice: str = ""


@dataclass(frozen=True)
class JudgedQueries:
    """Queries with at least one relevant item each.

    Attributes:
        truth: the grades of each query, by query id.
        notes: which queries and which grades do not count, a sentence each.
    """

    queries: Sequence[LoggedQuery]
    truth: Mapping[str, Grades]
    notes: Sequence[str] = field(default=())

    @property
    def items(self) -> set[str]:
        """Ids of all items that are relevant for a query."""
        return {item for grades in self.truth.values() for item, grade in grades.items() if grade}


def read_judged(queries: str, truth: str, keys: tuple[str, str] = (QUERIES, TRUTH)) -> JudgedQueries:
    """Reads queries and truth.

    Args:
        queries: see `read_queries`.
        truth: see `read_truth`.
        keys: the options, or keys of the configuration, that name the files.

    Raises:
        ConfigurationError: if a file can't be read, or no query has a relevant item.
    """
    asked, grades = read_queries(queries, keys[0]), read_truth(truth, keys[1])
    kept = [one for one in asked if any(grades.get(one.id, {}).values())]
    known = {one.id for one in asked}
    if not kept:
        some = ", ".join(list(grades)[:3])
        raise ConfigurationError(
            f"{keys[1]}: {truth} has no relevant item for any of the {len(asked):,} queries of {queries}; its query "
            f"ids are, for example, {some}",
            f"name files whose query ids are the same, for example {asked[0].id}",
        )
    counts = {
        f"queries of {queries} have no entry in {truth}": sum(one.id not in grades for one in asked),
        f"queries have no relevant item in {truth}": sum(one.id in grades for one in asked) - len(kept),
        f"queries of {truth} are not in {queries}": len(grades.keys() - known),
    }
    notes = [f"{count:,} {what}: left out" for what, count in counts.items() if count]
    return JudgedQueries(kept, {one.id: grades[one.id] for one in kept}, notes)


def read_queries(path: str, key: str = QUERIES) -> list[LoggedQuery]:
    """Reads queries: JSON lines, tab-separated ids and texts, or a text file with a query on each line.

    A line of JSON has an id (`_id` or `id`), and `text`; or `image`, `audio` or `video` with the path of a file,
    relative to the file of queries. It may have `slice`.

    Raises:
        ConfigurationError: with the line, for what is not such a file, a blank query, or an id that exists already.
    """
    found: list[LoggedQuery] = []
    seen: dict[str, int] = {}
    suffix = PurePosixPath(path).suffix
    for number, line in _lines(path, key):
        place = f"{key}: {path}, line {number}"
        if suffix == ".txt":
            query = LoggedQuery(str(number), line)
        elif suffix == ".tsv":
            name, tab, text = line.partition("\t")
            if not tab:
                raise ConfigurationError(f"{place} has no tab", "write the id, a tab, and the text of the query")
            query = LoggedQuery(name, text)
        else:
            query = _from_json(line, path, place)
        if not query.content.strip():
            raise ConfigurationError(f"{place}: the query {query.id!r} is blank", "name some words, or remove the line")
        if query.id in seen:
            raise ConfigurationError(
                f"{place}: the query id {query.id!r} is on line {seen[query.id]} already", "give each query its own id"
            )
        seen[query.id] = number
        found.append(query)
    if not found:
        line = "a query on each line" if suffix == ".txt" else 'lines such as {"id": "1", "text": "..."}'
        raise ConfigurationError(f"{key}: {path} has no query", f"write {line}")
    return found


def read_truth(path: str, key: str = TRUTH) -> dict[str, dict[str, int]]:
    """Reads grades: query, item, grade on a line (BEIR, with or without a header); or query, 0, item, grade (TREC).

    Returns:
        The grades of each query, by its id.

    Raises:
        ConfigurationError: with the line, for what is not such a file, a grade that is not a whole number from 0 to
            `MOST_GRADE`, or two different grades of one item for a query.
    """
    found: dict[str, dict[str, int]] = {}
    first = True
    for number, line in _lines(path, key):
        fields = [one.strip() for one in line.split("\t")] if "\t" in line else line.split()
        place = f"{key}: {path}, line {number}"
        if len(fields) not in (3, 4):
            raise ConfigurationError(
                f"{place} has {len(fields)} fields: {line[:80]!r}",
                "write query, item and grade, separated by tabs; or as TREC does query, 0, item and grade",
            )
        is_header, first = first and not _is_number(fields[-1]), False
        if is_header:
            continue
        query, item, grade = fields[0], fields[-2], _grade(fields[-1], place)
        grades = found.setdefault(query, {})
        if grades.setdefault(item, grade) != grade:
            raise ConfigurationError(
                f"{place}: the item {item!r} has the grade {grades[item]} for the query {query!r}, and here {grade}",
                "keep one of the two lines",
            )
    if not found:
        raise ConfigurationError(f"{key}: {path} has no grade", "write lines of query, item and grade")
    return found


def _from_json(line: str, path: str, place: str) -> LoggedQuery:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"{place} is not valid JSON: {error}", "correct that line") from None
    if not isinstance(record, dict):
        raise ConfigurationError(f"{place} is not a JSON object", 'write {"id": "1", "text": "..."}')
    name = next((record[one] for one in _IDS if record.get(one) is not None), None)
    if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
        raise ConfigurationError(f"{place} has no id", "name the query with _id or id, a string or a whole number")
    kind = next((one for one in Modality if isinstance(record.get(one.value), str)), None)
    if kind is None:
        has = f"has a text of type {type(record['text']).__name__}" if "text" in record else "has no text"
        raise ConfigurationError(f"{place}: the query {name!r} {has}", "name text; or image, audio or video, a path")
    content = record[kind.value]
    if kind.is_media and "://" not in content:
        content = str(PurePosixPath(path).parent / content)
    part = record.get("slice")
    return LoggedQuery(str(name), content, kind, "" if part is None else str(part))


def _lines(path: str, key: str) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines of a file that are not blank."""
    for number, line in lines_of(read_named(path, key)):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"{key}: {path}, line {number} is not valid UTF-8: {error.reason} at byte {error.start}",
                f"convert it, for example: iconv -f latin1 -t utf-8 {path}",
            ) from None
        if "\0" in text:
            raise ConfigurationError(
                f"{key}: {path}, line {number} has a NUL character: the file is not UTF-8 text",
                f"convert it, for example: iconv -f utf-16 -t utf-8 {path}",
            )
        if text.strip():
            yield number, text.rstrip("\r")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _grade(text: str, place: str) -> int:
    value = float(text) if _is_number(text) else math.nan
    if not math.isfinite(value):
        raise ConfigurationError(f"{place}: the grade {text!r} is not a number", "write 0 for not relevant, 1 or more")
    if value < 0:
        raise ConfigurationError(f"{place}: the grade {text} is negative", "write 0 for an item that is not relevant")
    if value != int(value):
        raise ConfigurationError(f"{place}: the grade {text} is not a whole number", "write 0, 1, 2 and so on")
    if value > MOST_GRADE:
        raise ConfigurationError(
            f"{place}: the grade {text} is above {MOST_GRADE:,}", "write 0 for not relevant, 1, 2 and so on for better"
        )
    return int(value)
