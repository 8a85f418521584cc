"""CSV and TSV after RFC 4180: quoted fields may hold delimiters, doubled quotes and line ends.

A record that can't be parsed costs one reject: parsing continues at the line after its first one. So if a
record begins, nothing is remembered of those before, and a file may be split there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace

from schemas.config import Corpus
from transforms.read import decompression, stream
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.formats import charset
from transforms.read.formats.csv_records import Dialect, Line, lines_of, records
from transforms.read.listing.files import SourceFile
from transforms.read.media_item import Checker, checker_of
from transforms.read.open_file import OpenFile
from transforms.read.rejected_item import RejectedItemError, shown_names


def read(opened: OpenFile, sink: BatchBuilder) -> Iterator[Batch]:
    """Reads the records that start in bytes [start, end), which begins and ends at a record; 0 and 0 for all.

    The first record of the file is the header. A record must have as many fields as the header. A file without any
    record holds no item.

    Raises:
        streams.FileRejectedError: `WrongSchema` where the header does not have a column that the configuration needs
        (said by
            the range that begins at 0 alone), or `DamagedFile` after the items before the damage.
    """
    raw, file, start, end = opened.raw, opened.file, opened.start, opened.end
    corpus = sink.corpus
    check = checker_of(corpus, file)
    line = 0
    try:
        dialect = dialect_of(raw, file, corpus, opened.quoted)
        raw.rewind()
        found = records(lines_of(_content(raw, file, dialect), 0, dialect), dialect)
        header_at, line, fields = next(found, (0, 0, None))
        if fields is None:
            return
        try:
            header = _checked_header(fields, corpus)
        except stream.FileRejectedError:
            if start:
                return
            raise
        if start:
            raw.seek(start)
            found = records(lines_of(raw.blocks(end=end), start, dialect), dialect)
        for offset, line, fields in found:
            if end and offset >= end:
                break
            if offset <= header_at:
                continue
            place = f"byte {offset}" if start else f"line {line}"
            try:
                if isinstance(fields, RejectedItemError):
                    raise fields
                if len(fields) != len(header):
                    raise _uneven(header, fields, corpus, check)
                item_id, *found_item = check(dict(zip(header, fields, strict=True)))
            except RejectedItemError as error:
                full = sink.reject(error.item_id, place, error.error, error.reason)
            else:
                full = sink.add(item_id, place, *found_item)
            if full:
                yield sink.take()
    except stream.FileRejectedError as error:
        raise error.after(f"line {line}" if line and not start else "") from error


def raw_records(raw: stream.RawStream, file: SourceFile, corpus: Corpus) -> Iterator[dict[str, str]]:
    """The unchanged records of a whole file, without those that can't be parsed."""
    dialect = dialect_of(raw, file, corpus)
    raw.rewind()
    found = records(lines_of(_content(raw, file, dialect), 0, dialect), dialect)
    _, _, header = next(found, (0, 0, None))
    for _, _, fields in found:
        if isinstance(header, list) and isinstance(fields, list):
            yield dict(zip(header, fields, strict=False))


def delimiter_hint(names: Sequence[str]) -> str:
    """A hint for a header that is one field with a delimiter in it, or "".

    >>> delimiter_hint(["id;text"])
    "; if ';' separates its fields, set corpus.csv.delimiter"
    """
    marks = [mark for mark in ";\t|," if len(names) == 1 and mark in names[0]]
    return f"; if {marks[0]!r} separates its fields, set corpus.csv.delimiter" if marks else ""


def _checked_header(header: list[str] | RejectedItemError, corpus: Corpus) -> list[str]:
    if isinstance(header, RejectedItemError):
        raise stream.FileRejectedError("WrongSchema", f"The header line can't be read: {header.reason}")
    needed = [*corpus.id_fields, *corpus.embedded_fields]
    missing = list(dict.fromkeys(name for name in needed if name not in header))
    if missing:
        raise stream.FileRejectedError(
            "WrongSchema",
            f"The header has no {', '.join(missing)}, which the configuration names; it has {shown_names(header)}"
            + delimiter_hint(header),
        )
    named = [*needed, *filter(None, map(corpus.source_of, corpus.metadata))]
    twice = [name for name in named if header.count(name) > 1]
    if twice:
        why = f"The header names {twice[0]!r} more than once: {shown_names(header)}"
        raise stream.FileRejectedError("WrongSchema", why)
    return header


def _uneven(header: list[str], fields: list[str], corpus: Corpus, check: Checker) -> RejectedItemError:
    # Fields may have moved, so the id is trusted only if it comes before any that could be missing.
    item_id = check.known_id(dict(zip(header, fields, strict=False))) if header[0] == corpus.id else None
    return RejectedItemError(
        "InvalidCsv", f"The record has {len(fields)} fields where the header has {len(header)}: {fields!a}", item_id
    )


def dialect_of(raw: stream.RawStream, file: SourceFile, corpus: Corpus, quoted: bool | None = None) -> Dialect:
    """How a file is written, from the configuration and the whole file, so that each of its shards finds the same.

    Reads the header; and all of a file with tabs between its fields, unless the configuration says whether it has
    quotes.

    Raises:
        streams.FileRejectedError: `DamagedFile` before the end of the header.
    """
    settings = corpus.csv
    raw.rewind()
    content = decompression.blocks(raw, file)
    beginning, content = stream.peeked(content, charset.MARK_BYTES)
    dialect = Dialect(
        delimiter=settings.delimiter or file.delimiter,
        quoted=settings.quoting != "none",
        escape=settings.escape,
        encoding=charset.of_file(beginning, settings.encoding or corpus.encoding),
        returns=True,
    )
    if not charset.is_splittable(dialect.encoding):
        content = charset.recoded(content, dialect.encoding)
    header = _Terminators(stream.lines_with_ends(content, 0))
    next(records(header, dialect), None)
    dialect = replace(dialect, returns=header.last.endswith(b"\r"))
    if settings.quoting == "auto" and dialect.delimiter == "\t" and not dialect.escape:
        dialect = replace(dialect, quoted=_is_quoted(raw, file, dialect) if quoted is None else quoted)
    return dialect


class _Terminators:
    """Iterates over lines and keeps the last one that is not blank."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.last = b""

    def __iter__(self) -> _Terminators:
        return self

    def __next__(self) -> Line:
        entry = next(self._lines)
        self.last = entry[1] or b""
        return entry


def _content(raw: stream.RawStream, file: SourceFile, dialect: Dialect) -> Iterator[bytes]:
    """Blocks of the whole file; converted to UTF-8 if a character's bytes could look like a delimiter."""
    content = decompression.blocks(raw, file)
    return content if charset.is_splittable(dialect.encoding) else charset.recoded(content, dialect.encoding)


def _is_quoted(raw: stream.RawStream, file: SourceFile, dialect: Dialect) -> bool:
    """Whether quotes in a file with tabs delimit fields, as in spreadsheets, or are ordinary characters.

    They make fields where they pair up within each line, or if reading them as letters would leave more records
    broken: lines with another number of fields than the header, or fields with doubled quotes.
    """

    def lines() -> Iterator[bytes]:
        raw.rewind()
        for _, line in lines_of(_content(raw, file, dialect), 0, dialect):
            if line and line.strip(b"\r\n"):
                yield line.rstrip(b"\r\n")

    try:
        if all(b'"' not in line or _quotes_pair_up(line) for line in lines()):
            return True
        rest = lines()
        header = next(rest)
        if header.startswith(b'"'):
            return True
        tabs = header.count(b"\t")
        broken = sum(line.count(b"\t") != tabs or (b'""' in line and _has_doubled_quotes(line)) for line in rest)
        raw.rewind()
        found = records(lines_of(_content(raw, file, dialect), 0, dialect), dialect)
        rejected = sum(isinstance(fields, RejectedItemError) or len(fields) != tabs + 1 for _, _, fields in found)
    except stream.FileRejectedError:
        return True  # damaged: what comes before is read by RFC 4180
    return broken > rejected


def _quotes_pair_up(line: bytes) -> bool:
    try:
        next(csv.reader([line.decode("utf-8", "replace")], delimiter="\t", strict=True))
    except csv.Error:
        return False
    return True


def _has_doubled_quotes(line: bytes) -> bool:
    try:
        fields = next(csv.reader([line.decode("utf-8", "replace")], delimiter="\t", strict=True))
    except csv.Error:
        return False
    return any('"' in field for field in fields)
