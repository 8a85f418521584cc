"""Parses the records of CSV and TSV, each with the place where it begins."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from transforms.read import stream
from transforms.read.formats import charset
from transforms.read.formats.jsonl import too_large
from transforms.read.rejected_item import RejectedItemError

Record = tuple[int, int, list[str] | RejectedItemError]
"""(byte offset, line number from 1 on, fields or why there are none)"""
Line = tuple[int, bytes | None]
"""(byte offset, line; None for one that is too long)"""


@dataclass(frozen=True)
class Dialect:
    r"""How a file is written.

    Attributes:
        delimiter: one character.
        quoted: whether quotes delimit fields; else they are ordinary characters.
        escape: the character that makes the next one an ordinary one, or none.
        encoding: name of the codec.
        returns: whether a lone \r ends a line, as in old Macintosh files.
    """

    delimiter: str
    quoted: bool = True
    escape: str | None = None
    encoding: str = charset.UTF_8
    returns: bool = False


def lines_of(content: Iterator[bytes], offset: int, dialect: Dialect) -> Iterator[Line]:
    """Lines of blocks of which the first begins at `offset`, as UTF-8."""
    found = stream.lines_with_ends(content, offset) if dialect.returns else stream.lines(content, offset, None)
    if dialect.encoding == charset.UTF_8 or not charset.is_splittable(dialect.encoding):
        return found
    return ((at, line if line is None else charset.to_utf8(line, dialect.encoding)) for at, line in found)


def records(lines: Iterator[Line], dialect: Dialect) -> Iterator[Record]:
    """Parsed records of lines; blank lines between records are left out."""
    source = _RecordLines(lines, dialect)
    # The csv module's own limit, for the whole process; _RecordLines limits a record.
    csv.field_size_limit(max(csv.field_size_limit(), stream.MAX_RECORD_BYTES))
    reader = _reader(source, dialect)
    while True:
        source.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, RejectedItemError) as error:
            yield source.offset, source.number, _unparsed(error, source)
            source.push_back()
            reader = _reader(source, dialect)
            continue
        if not fields:
            continue
        yield source.offset, source.number, source.bad_text() or fields


def _reader(source: _RecordLines, dialect: Dialect) -> Iterator[list[str]]:
    return csv.reader(
        source,
        delimiter=dialect.delimiter,
        escapechar=dialect.escape,
        quoting=csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE,
        strict=True,
    )


def _unparsed(error: Exception, source: _RecordLines) -> RejectedItemError:
    if isinstance(error, RejectedItemError):
        return error
    what = "a quote is opened and never closed" if "unexpected end of data" in str(error) else str(error)
    beginning = source.beginning()
    return RejectedItemError("InvalidCsv", f"The record is not valid CSV: {what}: {beginning}")


class _RecordLines:
    """Passes lines to the csv module one by one, and keeps the lines of the current record."""

    def __init__(self, lines: Iterator[Line], dialect: Dialect) -> None:
        self._lines = lines
        self._encoding = dialect.encoding
        self._with_ends = dialect.returns
        self._again: deque[Line] = deque()
        self._next_number = 1
        self._record: list[Line] = []
        self._bytes = 0
        self._bad_text: RejectedItemError | None = None

    def begin(self) -> None:
        """A new record begins with the next line."""
        self._next_number += len(self._record)
        self._record = []
        self._bytes = 0
        self._bad_text = None

    def push_back(self) -> None:
        """Consumes only the record's first line; the others are read again as records of their own."""
        self._again.extendleft(reversed(self._record[1:]))
        del self._record[1:]

    @property
    def offset(self) -> int:
        """Byte offset at which the record starts."""
        return self._record[0][0]

    @property
    def number(self) -> int:
        """Number of the record's first line, from 1 on."""
        return self._next_number

    def bad_text(self) -> RejectedItemError | None:
        """Why the record is not text, if so."""
        return self._bad_text

    def beginning(self) -> str:
        line = self._record[0][1] or b""
        return ascii(line[:60].decode("utf-8", "replace")) + ("..." if len(line) > 60 else "")

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        entry = self._again.popleft() if self._again else next(self._lines)
        self._record.append(entry)
        line = entry[1]
        self._bytes += len(line) if line is not None else 0
        if line is None or self._bytes > stream.MAX_RECORD_BYTES:
            raise too_large("record" if len(self._record) == 1 else "record (a quote may be left open)")
        end = "" if self._with_ends and line.endswith((b"\n", b"\r")) else "\n"
        try:
            return line.decode() + end
        except UnicodeDecodeError as error:
            if self._bad_text is None:
                self._bad_text = charset.bad_text("The record", line, error, self._encoding, self._bytes - len(line))
            return line.decode("utf-8", "replace") + end
