"""CSV and TSV after RFC 4180: quoted fields may hold delimiters, doubled quotes and line ends.

A record that can't be parsed costs one reject: parsing goes on at the line after the one where it began.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

import numpy as np

from schemas.config import Corpus
from transforms.read import streams
from transforms.read.batches import Batch, BatchBuilder
from transforms.read.formats.jsonl import too_large
from transforms.read.items import ItemChecker, RejectedItemError
from transforms.read.listing import SourceFile

Record = tuple[int, int, list[str] | RejectedItemError]
"""(byte offset, line number from 1 on, fields or why there are none)"""


def read(
    raw: streams.RawStream, file: SourceFile, start: int, end: int, corpus: Corpus, builder: BatchBuilder
) -> Iterator[Batch]:
    """Reads the records that start in bytes [start, end), which begins and ends at a record; 0 and 0 for all.

    The first record of the file is the header. A record must have as many fields as the header.

    Raises:
        streams.FileRejectedError: `EmptyFile`, `WrongSchema` where the header lacks a column that the configuration
            needs, or `DamagedFile` after the items before the damage.
    """
    check = ItemChecker(corpus, file.uri, text_values=True)
    line = 0
    try:
        found = records(streams.lines(streams.blocks(raw, file), 0, None), file.delimiter)
        header = _header(found, corpus)
        if start:
            raw.seek(start)
        if end:
            found = records(streams.lines(raw.blocks(end=end), start, end), file.delimiter)
            if not start:
                next(found)
        for offset, line, fields in found:
            place = f"byte {offset}" if start else f"line {line}"
            try:
                if isinstance(fields, RejectedItemError):
                    raise fields
                if len(fields) != len(header):
                    raise _uneven(header, fields, corpus, check)
                item_id, content, metadata = check(dict(zip(header, fields, strict=True)))
            except RejectedItemError as error:
                full = builder.reject(error.item_id, place, error.error, error.reason)
            else:
                full = builder.add(item_id, place, content, metadata)
            if full:
                yield builder.take()
    except streams.FileRejectedError as error:
        raise error.after(f"line {line}" if line and not start else "") from error


def _header(found: Iterator[Record], corpus: Corpus) -> list[str]:
    _, _, header = next(found, (0, 0, None))
    if header is None:
        raise streams.FileRejectedError("EmptyFile", "The file holds no header line")
    if isinstance(header, RejectedItemError):
        raise streams.FileRejectedError("WrongSchema", f"The header line can't be read: {header.reason}")
    needed = [*corpus.id_fields, *corpus.content]
    missing = [name for name in needed if name not in header]
    if missing:
        raise streams.FileRejectedError(
            "WrongSchema", f"The header lacks {', '.join(missing)}, which the configuration names; it has {header!a}"
        )
    named = [*needed, *filter(None, map(corpus.source_of, corpus.metadata))]
    twice = [name for name in named if header.count(name) > 1]
    if twice:
        raise streams.FileRejectedError("WrongSchema", f"The header names {twice[0]!r} more than once: {header!a}")
    return header


def _uneven(header: list[str], fields: list[str], corpus: Corpus, check: ItemChecker) -> RejectedItemError:
    # Fields may have moved, so the id is trusted only where it stands before any that could be missing.
    item_id = check.known_id(dict(zip(header, fields, strict=False))) if header[0] == corpus.id else None
    return RejectedItemError(
        "InvalidCsv", f"The record has {len(fields)} fields where the header has {len(header)}: {fields!a}", item_id
    )


def records(lines: Iterator[tuple[int, bytes | None]], delimiter: str) -> Iterator[Record]:
    """Parsed records of lines; blank lines between records are left out."""
    source = _RecordLines(lines)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    # The limit is the csv module's own and holds for the whole process; a record is bounded by _RecordLines.
    csv.field_size_limit(max(csv.field_size_limit(), streams.MAX_RECORD_BYTES))
    while True:
        source.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (csv.Error, RejectedItemError) as error:
            yield source.offset, source.number, _unparsed(error, source)
            source.push_back()
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            continue
        if not fields:
            continue
        yield source.offset, source.number, source.bad_utf8() or fields


def _unparsed(error: Exception, source: _RecordLines) -> RejectedItemError:
    if isinstance(error, RejectedItemError):
        return error
    what = "a quote is opened and never closed" if "unexpected end of data" in str(error) else str(error)
    beginning = source.beginning()
    return RejectedItemError("InvalidCsv", f"The record is no CSV: {what}: {beginning}")


class _RecordLines:
    """Feeds the csv module line by line, and remembers the lines of the record at hand."""

    def __init__(self, lines: Iterator[tuple[int, bytes | None]]) -> None:
        self._lines = lines
        self._again: deque[tuple[int, bytes | None]] = deque()
        self._next_number = 1
        self._record: list[tuple[int, bytes | None]] = []
        self._bytes = 0
        self._bad_utf8: RejectedItemError | None = None

    def begin(self) -> None:
        """A new record begins with the next line."""
        self._next_number += len(self._record)
        self._record = []
        self._bytes = 0
        self._bad_utf8 = None

    def push_back(self) -> None:
        """Only the record's first line is used up; the others are read again as records of their own."""
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

    def bad_utf8(self) -> RejectedItemError | None:
        """Why the record is no text, if so."""
        return self._bad_utf8

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
        if line is None or self._bytes > streams.MAX_RECORD_BYTES:
            raise too_large("record" if len(self._record) == 1 else "record (a quote may be left open)")
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as error:
            if self._bad_utf8 is None:
                position = error.start + self._bytes - len(line)
                self._bad_utf8 = RejectedItemError(
                    "InvalidUtf8", f"The record is no UTF-8 at its byte {position}: 0x{line[error.start]:02x}"
                )
            return line.decode("utf-8", "replace") + "\n"


def split_points(raw: streams.RawStream, file: SourceFile, step: int) -> list[int]:
    """Byte offsets of records at which an uncompressed file is split: the first one at or after each multiple of step.

    Reads the file once. Where every quote opens or closes a field, counting quotes tells which line ends are inside a
    field; where one does not, the records are parsed.
    """
    points = _points_by_quotes(raw, step, ord(file.delimiter))
    if points is None:
        raw.seek(0)
        points = []
        for offset, _, _ in records(streams.lines(raw.blocks(), 0, None), file.delimiter):
            if offset >= step * (len(points) + 1):
                points.extend([offset] * (offset // step - len(points)))
    return sorted({point for point in points if 0 < point < file.size})


def _points_by_quotes(raw: streams.RawStream, step: int, delimiter: int) -> list[int] | None:
    points: list[int] = []
    position = 0  # of the block in the file
    open_quotes = 0
    before = ord("\n")  # the byte before the block
    closing = False  # the block before ended with a quote that closes a field, or is the first half of two
    for block in raw.blocks():
        if position == 0 and block.startswith(streams.BYTE_ORDER_MARK):
            block = b"\n\n\n" + block[3:]
        if b'"' in block or closing:
            data = np.frombuffer(block, dtype=np.uint8)
            quotes = np.flatnonzero(data == ord('"'))
            if not _quotes_stand_at_fields(data, quotes, open_quotes, before, closing, delimiter):
                return None
            closing = len(quotes) > 0 and quotes[-1] == len(data) - 1 and (open_quotes + len(quotes)) % 2 == 0
        else:
            quotes = np.empty(0, dtype=np.int64)
        while (target := step * (len(points) + 1)) <= position + len(block):
            point = _first_record(block, quotes, open_quotes, max(target - position - 1, 0))
            if point is None:
                break
            points.extend([position + point] * ((position + point) // step - len(points)))
        before = block[-1]
        open_quotes += len(quotes)
        position += len(block)
    return points


def _quotes_stand_at_fields(
    data: np.ndarray, quotes: np.ndarray, open_quotes: int, before: int, closing: bool, delimiter: int
) -> bool:
    """Whether each opening quote follows a delimiter, line end or quote, and each closing one precedes one."""
    borders = np.zeros(256, dtype=bool)
    borders[[delimiter, ord("\r"), ord("\n"), ord('"')]] = True
    if closing and not borders[data[0]]:
        return False
    opening = quotes[open_quotes % 2 :: 2]
    ending = quotes[1 - open_quotes % 2 :: 2]
    previous = np.where(opening > 0, data[np.maximum(opening - 1, 0)], before)
    following = data[np.minimum(ending + 1, len(data) - 1)]  # at the block's end it is the quote itself
    return bool(borders[previous].all() and borders[following].all())


def _first_record(block: bytes, quotes: np.ndarray, open_quotes: int, begin: int) -> int | None:
    r"""Position after the first \n at or after `begin` that is outside quotes; None where there is none."""
    newline = block.find(b"\n", begin)
    while newline >= 0:
        inside = (open_quotes + int(np.searchsorted(quotes, newline))) % 2
        if not inside:
            return newline + 1
        at = int(np.searchsorted(quotes, newline))
        if at >= len(quotes):
            return None
        newline = block.find(b"\n", int(quotes[at]))
    return None
