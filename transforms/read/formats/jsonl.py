"""JSON Lines: one object a line, read line by line from a byte range."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from schemas.config import Corpus
from transforms.read import streams
from transforms.read.batches import Batch, BatchBuilder
from transforms.read.items import ItemChecker, RejectedItemError
from transforms.read.listing import SourceFile

BLANK = b" \t\r\n"
KnownId = Callable[[dict[str, Any]], str | None]


def read(
    raw: streams.RawStream, file: SourceFile, start: int, end: int, corpus: Corpus, builder: BatchBuilder
) -> Iterator[Batch]:
    """Reads the lines that start in bytes [start, end) of a file; 0 and 0 for all. Blank lines are no items.

    Raises:
        streams.FileRejectedError: `EmptyFile`, or `DamagedFile` after the items before the damage.
    """
    check = ItemChecker(corpus, file.uri)
    number = 0
    records = 0
    try:
        for offset, line in range_lines(raw, file, start, end):
            number += 1
            if line is not None and not line.strip(BLANK):
                continue
            records += 1
            place = f"byte {offset}" if start else f"line {number}"
            try:
                if line is None:
                    raise too_large("line")
                record = parse(line, check.known_id)
                item_id, content, metadata = check(record)
            except RejectedItemError as error:
                full = builder.reject(error.item_id, place, error.error, error.reason)
            else:
                full = builder.add(item_id, place, content, metadata)
            if full:
                yield builder.take()
    except streams.FileRejectedError as error:
        raise error.after(f"line {number}" if number and not start else "") from error
    if not records and not end:
        raise streams.FileRejectedError("EmptyFile", "The file holds no line")


def range_lines(raw: streams.RawStream, file: SourceFile, start: int, end: int) -> Iterator[tuple[int, bytes | None]]:
    """(byte offset, line) of the lines that start in bytes [start, end) of a file; 0 and 0 for all."""
    if not end:
        return streams.lines(streams.blocks(raw, file), 0, None)
    if not start:
        return streams.lines(raw.blocks(end=end), 0, end)
    # From one byte earlier: if that is a line's end, the line at `start` is ours, else it is the range's before.
    raw.seek(start - 1)
    found = streams.lines(raw.blocks(end=end), start - 1, end)
    next(found, None)
    return found


def too_large(what: str) -> RejectedItemError:
    """The reject of a line or record that is too long to be held in memory."""
    return RejectedItemError("TooLarge", f"The {what} is longer than {streams.MAX_RECORD_BYTES >> 20} MiB")


def parse(line: bytes, known_id: KnownId) -> dict[str, Any]:
    """A line's object.

    Args:
        known_id: the id of a broken record, where it can be told.

    Raises:
        RejectedItemError: `InvalidUtf8`, `NulByte`, `InvalidJson`, or `WrongType` where it is no object.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _explained(line, str(error), known_id) from error
    if type(value) is not dict:
        kinds = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
        kind = kinds.get(type(value), "null")
        raise RejectedItemError("WrongType", f"The line is {kind}, not a JSON object: {_beginning(line)}")
    return value


def _explained(line: bytes, message: str, known_id: KnownId) -> RejectedItemError:
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
        reason = f"The line is no UTF-8 at its byte {error.start}: 0x{line[error.start]:02x}"
        return RejectedItemError("InvalidUtf8", reason, item_id if item_id and "\ufffd" not in item_id else None)
    if surrogate:
        return RejectedItemError(
            "InvalidUtf8", f"The line escapes a lone surrogate, which is no text: {message}", item_id
        )
    if b"\x00" in line:
        return RejectedItemError("NulByte", f"The line has a NUL byte at its byte {line.index(0)}", item_id)
    return RejectedItemError("InvalidJson", f"The line is no JSON: {message}: {_beginning(line)}", item_id)


def _has_surrogate(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _beginning(line: bytes) -> str:
    return ascii(line[:60].decode("utf-8", "replace")) + ("..." if len(line) > 60 else "")
