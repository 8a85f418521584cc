"""Where a CSV or TSV file may be split: at records of the whole file, so that its ranges give the same records."""

from __future__ import annotations

import numpy as np

from schemas.config import Corpus
from transforms.read import stream
from transforms.read.formats import charset, csv_records, delimited
from transforms.read.formats.csv_records import Dialect
from transforms.read.listing.files import SourceFile


def split_points(raw: stream.RawStream, file: SourceFile, corpus: Corpus) -> tuple[list[int], bool]:
    """Byte offsets of records at which an uncompressed file is split, and whether its quotes make fields.

    The points are the first records at or after each multiple of `corpus.shard_bytes`. If each line is a record, only
    the lines' ends around those are needed. Else the file is read once: if every quote opens or closes a field,
    counting quotes tells which line ends are inside a field; if one does not, the records are parsed.

    Raises:
        streams.FileRejectedError: `UnreadableFile`.
    """
    step = corpus.shard_bytes
    dialect = delimited.dialect_of(raw, file, corpus)
    if not charset.is_splittable(dialect.encoding):
        return [], dialect.quoted
    points: list[int] | None = None
    if not dialect.quoted and not dialect.escape:
        points = _points_by_lines(raw, file, step, dialect)
    elif not dialect.escape and dialect.delimiter.isascii() and not dialect.returns:
        raw.rewind()
        points = _points_by_quotes(raw, step, ord(dialect.delimiter))
    if points is None:
        points = _points_by_records(raw, step, dialect)
    return sorted({point for point in points if 0 < point < file.size}), dialect.quoted


def _points_by_records(raw: stream.RawStream, step: int, dialect: Dialect) -> list[int]:
    raw.rewind()
    points: list[int] = []
    for offset, _, _ in csv_records.records(csv_records.lines_of(raw.blocks(), 0, dialect), dialect):
        if offset >= step * (len(points) + 1):
            points.extend([offset] * (offset // step - len(points)))
    return points


def _points_by_lines(raw: stream.RawStream, file: SourceFile, step: int, dialect: Dialect) -> list[int]:
    points: list[int] = []
    for target in range(step, file.size, step):
        if points and points[-1] >= target:
            continue
        raw.seek(target - 1)
        position = target - 1
        for block in raw.blocks(stream.REST_BYTES):
            ends = [block.find(end) for end in ((b"\n", b"\r") if dialect.returns else (b"\n",))]
            if found := [end for end in ends if end >= 0]:
                # Between \r and \n the next range would begin with a blank line, which is not a record.
                points.append(position + min(found) + 1)
                break
            position += len(block)
    return points


def _points_by_quotes(raw: stream.RawStream, step: int, delimiter: int) -> list[int] | None:
    """None if a record could not be parsed: the parser continues within it then, and counting would not."""
    points: list[int] = []
    position = 0  # of the block in the file
    open_quotes = 0
    before = ord("\n")  # the byte before the block
    closing = False  # the previous block ended with a quote that closes a field, or is the first half of two
    held = False  # it ended with a \r outside quotes
    record = 0  # begin of the last record that began before the block
    beginning, content = stream.peeked(raw.blocks(), charset.MARK_BYTES)
    mark = charset.marked(beginning)[1]
    for block in content:
        if position < mark:
            position, block = mark, block[mark:]
            if not block:
                continue
        if held and not block.startswith(b"\n"):
            return None
        if b'"' in block or closing:
            data = np.frombuffer(block, dtype=np.uint8)
            quotes = np.flatnonzero(data == ord('"'))
            if not _quotes_stand_at_fields(data, quotes, open_quotes, before, closing, delimiter):
                return None
            closing = len(quotes) > 0 and quotes[-1] == len(data) - 1 and (open_quotes + len(quotes)) % 2 == 0
        else:
            quotes = np.empty(0, dtype=np.int64)
        if _has_lone_return(block, quotes, open_quotes):
            return None
        while (target := step * (len(points) + 1)) <= position + len(block):
            point = _first_record(block, quotes, open_quotes, max(target - position - 1, 0))
            if point is None:
                break
            points.extend([position + point] * ((position + point) // step - len(points)))
        before = block[-1]
        open_quotes += len(quotes)
        held = before == ord("\r") and open_quotes % 2 == 0
        last = _last_record(block, quotes, open_quotes - len(quotes))
        record = record if last is None else position + last
        position += len(block)
        if position - record > stream.MAX_RECORD_BYTES // 2:
            return None  # perhaps a record that is too long, which the parser would give up
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


def _has_lone_return(block: bytes, quotes: np.ndarray, open_quotes: int) -> bool:
    r"""Whether a \r outside quotes is followed by another byte of the block than \n."""
    returns = block.count(b"\r")
    if returns == block.count(b"\r\n") + block.endswith(b"\r"):
        return False
    data = np.frombuffer(block, dtype=np.uint8)
    lone = np.flatnonzero((data[:-1] == ord("\r")) & (data[1:] != ord("\n")))
    return bool(((open_quotes + np.searchsorted(quotes, lone)) % 2 == 0).any())


def _first_record(block: bytes, quotes: np.ndarray, open_quotes: int, begin: int) -> int | None:
    r"""Position after the first \n at or after `begin` that is outside quotes; None if there is none."""
    newline = block.find(b"\n", begin)
    while newline >= 0:
        at = int(np.searchsorted(quotes, newline))
        if (open_quotes + at) % 2 == 0:
            return newline + 1
        if at >= len(quotes):
            return None
        newline = block.find(b"\n", int(quotes[at]))
    return None


def _last_record(block: bytes, quotes: np.ndarray, open_quotes: int) -> int | None:
    r"""Position after the last \n that is outside quotes; None if there is none."""
    newline = block.rfind(b"\n")
    while newline >= 0:
        at = int(np.searchsorted(quotes, newline))
        if (open_quotes + at) % 2 == 0:
            return newline + 1
        if at == 0:
            return None
        newline = block.rfind(b"\n", 0, int(quotes[at - 1]))
    return None
