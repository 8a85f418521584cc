"""JSON Lines: one object per line, read line by line from a byte range."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import orjson

from transforms.read import decompression, stream
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.formats import charset
from transforms.read.listing.files import SourceFile
from transforms.read.media_item import checker_of
from transforms.read.open_file import OpenFile
from transforms.read.rejected_item import RejectedItemError

BLANK = b" \t\r\n"
KnownId = Callable[[dict[str, Any]], str | None]


def read(opened: OpenFile, sink: BatchBuilder) -> Iterator[Batch]:
    """Reads the lines that start in bytes [start, end) of a file; 0 and 0 for all. Blank lines are not items.

    A file without a line, as Spark writes them, holds no item.

    Raises:
        streams.FileRejectedError: `DamagedFile` after the items before the damage.
    """
    raw, file, start, end = opened.raw, opened.file, opened.start, opened.end
    corpus = sink.corpus
    check = checker_of(corpus, file)
    number = 0
    looked = not start
    try:
        encoding, found = range_lines(raw, file, start, end, corpus.encoding)
        for offset, line in found:
            number += 1
            if line is not None and not line.strip(BLANK):
                continue
            place = f"byte {offset}" if start else f"line {number}"
            try:
                if line is None:
                    raise too_large("line")
                record = parse(line, check.known_id, encoding)
                item_id, *item = check(record)
            except RejectedItemError as error:
                if not looked:
                    looked = True
                    if not charset.is_splittable(_encoding_at_begin(raw, corpus.encoding)):
                        return  # UTF-16 has no byte that always ends a line: the first range has all
                full = sink.reject(error.item_id, place, error.error, error.reason)
            else:
                full = sink.add(item_id, place, *item)
            if full:
                yield sink.take()
    except stream.FileRejectedError as error:
        raise error.after(f"line {number}" if number and not start else "") from error


def range_lines(
    raw: stream.RawStream, file: SourceFile, start: int, end: int, configured: str | None
) -> tuple[str, Iterator[tuple[int, bytes | None]]]:
    """The encoding of a file, and (byte offset, line in UTF-8) of the lines that start in bytes [start, end) of it.

    Start and end of 0 are for all. A file that can't be split, as its byte order mark says, is whole in the first one.
    """
    if start:
        encoding = charset.of_file(b"", configured)
        if encoding != charset.UTF_8:
            encoding = _encoding_at_begin(raw, configured)
        return encoding, _recoded(_later_lines(raw, start, end), encoding)
    content = decompression.blocks(raw, file) if not end else raw.blocks(end=end)
    beginning, content = stream.peeked(content, charset.MARK_BYTES)
    encoding = charset.of_file(beginning, configured)
    if not charset.is_splittable(encoding):
        return encoding, stream.lines(charset.recoded(content, encoding), 0, None)
    return encoding, _recoded(stream.lines(content, 0, end or None), encoding)


def _recoded(lines: Iterator[tuple[int, bytes | None]], encoding: str) -> Iterator[tuple[int, bytes | None]]:
    if encoding == charset.UTF_8:
        return lines
    return ((offset, line if line is None else charset.to_utf8(line, encoding)) for offset, line in lines)


def _later_lines(raw: stream.RawStream, start: int, end: int) -> Iterator[tuple[int, bytes | None]]:
    # From one byte earlier: if that is a line's end, the line at `start` is in this range, else in the previous one.
    position = start - 1
    raw.seek(position)
    content = raw.blocks(end=end)
    for block in content:
        newline = block.find(b"\n")
        if newline >= 0:
            position += newline + 1
            rest = chain([block[newline + 1 :]], content)
            return stream.lines(rest, position, end) if position < end else iter(())
        position += len(block)
        if position >= end:
            break
    return iter(())


def _encoding_at_begin(raw: stream.RawStream, configured: str | None) -> str:
    position = raw.tell()
    raw.seek(0)
    beginning = b""
    while len(beginning) < charset.MARK_BYTES and (data := raw.read(charset.MARK_BYTES - len(beginning))):
        beginning += data
    raw.seek(position)
    return charset.of_file(beginning, configured)


def too_large(what: str) -> RejectedItemError:
    """The reject of a line or record that is too long to be held in memory."""
    return RejectedItemError("RecordTooLarge", f"The {what} is longer than {stream.MAX_RECORD_BYTES >> 20} MiB")


def parse(line: bytes, known_id: KnownId, encoding: str = charset.UTF_8) -> dict[str, Any]:
    """A line's object.

    Args:
        known_id: the id of a broken record, if it can be found.
        encoding: of the file, for the message about a line that is not text.

    Raises:
        RejectedItemError: `InvalidUtf8`, `InvalidEncoding`, `NulByte`, `InvalidJson`, or `WrongType` where it is not
            ant an object.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _explained(line, str(error), known_id, encoding) from error
    if type(value) is not dict:
        kinds = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
        kind = kinds.get(type(value), "null")
        raise RejectedItemError("WrongType", f"The line is {kind}, not a JSON object: {_beginning(line)}")
    return value


def _explained(line: bytes, message: str, known_id: KnownId, encoding: str) -> RejectedItemError:
    item_id = None
    surrogate = False
    try:
        lenient = json.loads(line.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        pass
    else:
        if isinstance(lenient, dict):
            item_id = known_id(lenient)
        surrogate = _has_surrogate(lenient)
    try:
        line.decode()
    except UnicodeDecodeError as error:
        found = charset.bad_text("The line", line, error, encoding)
        found.item_id = item_id if item_id and "\ufffd" not in item_id else None
        return found
    if surrogate:
        return RejectedItemError(
            "InvalidUtf8", f"The line escapes a lone surrogate, which is not text: {message}", item_id
        )
    if b"\x00" in line:
        return RejectedItemError("NulByte", f"The line has a NUL byte at its byte {line.index(0)}", item_id)
    return RejectedItemError("InvalidJson", f"The line is not valid JSON: {message}: {_beginning(line)}", item_id)


def _has_surrogate(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _beginning(line: bytes) -> str:
    return ascii(line[:60].decode("utf-8", "replace")) + ("..." if len(line) > 60 else "")
