"""Parquet files with checksums over all that a reader takes from them: each column of a row group, and the footer.

The format itself has checksums of the data of pages alone. A bit that flips in the header of a page or in the footer
gives other values, or a column another name, and often no error. The checksums are in front of the footer, where no
offset points to, so that other programs read the file as any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

MARK = bytes.fromhex("9df1b7ffc2a04e8e93d6e0f5a8c17b64")
"""In front of the footer's checksum: files of earlier releases do not have it, and are read without checksums."""
_PAIR = struct.Struct("<II")  # CRC-32 of all bytes of the file up to a column, and up to its end
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 16
_SEAL_BYTES = len(MARK) + _LENGTH.size + _DIGEST_BYTES
_END_BYTES = 8  # the length of the footer, and PAR1
_TAIL_BYTES = 64 << 10


class ColumnSums(NamedTuple):
    """The bytes of a column of a row group, and the CRC-32 of the file up to them and up to their end."""

    length: int
    before: int
    after: int


class Footer(NamedTuple):
    """What the footer of a file says; `spans` has its columns by offset, none in a file of an earlier release."""

    metadata: pq.FileMetaData
    spans: Mapping[int, ColumnSums]


class _Sink(io.RawIOBase):
    """Passes on what is written until the footer comes, which it keeps, and sums it up."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._position = self._sum = 0
        self.sums = {0: 0}  # CRC-32 of the bytes up to where each write ended
        self.end: io.BytesIO | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._position += len(data)
        self._sum = zlib.crc32(data, self._sum)
        self.sums[self._position] = self._sum
        return (self._stream if self.end is None else self.end).write(data)


@contextlib.contextmanager
def checked_writer(stream: BinaryIO, schema: pa.Schema, **options: Any) -> Iterator[pq.ParquetWriter]:
    """A writer of a Parquet file with checksums.

    Args:
        options: of `pq.ParquetWriter`.
    """
    sink = _Sink(stream)
    with pq.ParquetWriter(sink, schema, write_page_checksum=True, **options) as writer:
        yield writer
        sink.end = kept = io.BytesIO()
    end = kept.getvalue()
    columns = _columns(pq.read_metadata(pa.BufferReader(end)))
    pairs = b"".join(_PAIR.pack(sink.sums[start], sink.sums[start + length]) for start, length in columns)
    at = len(end) - _END_BYTES - _footer_bytes(end)
    stream.write(end[:at] + pairs + _seal(pairs, end[at:]) + end[at:])


def _columns(metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """Offset and length of each column of each row group, as Arrow reads it: in one piece."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        if group.num_rows == 0:
            continue  # its offsets are not set: nothing is read of it
        for column in map(group.column, range(group.num_columns)):
            start = column.data_page_offset
            if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
                start = column.dictionary_page_offset
            yield start, column.total_compressed_size


def _footer_bytes(end: bytes) -> int:
    return int.from_bytes(end[-_END_BYTES:-4], "little")


def _seal(pairs: bytes, footer: bytes) -> bytes:
    """What is between the pairs and the footer: mark, bytes of the pairs, and the checksum of both."""
    digest = hashlib.blake2b(pairs + footer, digest_size=_DIGEST_BYTES).digest()
    return MARK + _LENGTH.pack(len(pairs)) + digest


def checked_footer(stream: BinaryIO) -> Footer:
    """The footer of a file, compared with its checksum where the file has one.

    Raises:
        pa.ArrowInvalid: if it is not what was written, or not of a Parquet file.
    """
    size = stream.seek(0, io.SEEK_END)
    tail = _tail(stream, size, _TAIL_BYTES)
    wanted = _SEAL_BYTES + _footer_bytes(tail) + _END_BYTES
    if wanted > len(tail):
        tail = _tail(stream, size, wanted)
    pairs = b""
    # It is compared before it is parsed: of some damages Arrow ends the process. A mark elsewhere than in front of the
    # footer says that the footer's length is not the one that was written.
    if MARK in tail:
        at = max(0, len(tail) - wanted)
        summed = _LENGTH.unpack_from(tail, at + len(MARK))[0] if at + _SEAL_BYTES <= len(tail) else 0
        if wanted + summed > len(tail):
            tail = _tail(stream, size, wanted + summed)
            at = max(0, len(tail) - wanted)
        pairs = tail[max(0, at - summed) : at]
        seal, footer = tail[at : at + _SEAL_BYTES], tail[at + _SEAL_BYTES :]
        if seal != _seal(pairs, footer):
            raise pa.ArrowInvalid("its footer is not the one that was written")
    metadata = pq.read_metadata(pa.BufferReader(tail))
    columns = _columns(metadata) if pairs else ()
    sums = _PAIR.iter_unpack(pairs)
    return Footer(
        metadata, {start: ColumnSums(length, *pair) for (start, length), pair in zip(columns, sums, strict=True)}
    )


def _tail(stream: BinaryIO, size: int, length: int) -> bytes:
    length = min(size, length)
    stream.seek(size - length)
    tail = stream.read(length)
    if len(tail) < length:
        raise pa.ArrowInvalid(f"{length - len(tail)} of its {size} bytes could not be read")
    return tail


class _CheckedStream(io.RawIOBase):
    """A stream whose columns are compared with their checksums when they are read."""

    def __init__(self, stream: BinaryIO, spans: Mapping[int, ColumnSums]) -> None:
        super().__init__()
        self._stream = stream
        self._spans = spans

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        span = self._spans.get(start := self._stream.tell())
        data = self._stream.read(-1 if size is None else size)
        if span is not None and len(data) == span.length and zlib.crc32(data, span.before) != span.after:
            raise pa.ArrowInvalid(f"the {len(data)} bytes from {start} on are not those that were written")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def parquet_of(stream: BinaryIO, footer: Footer | None = None) -> pq.ParquetFile:
    """An open file whose footer and columns are compared with their checksums, where it has them.

    Without them a bit that flips on a disk gives other numbers in a vector, and no error.
    """
    metadata, spans = footer or checked_footer(stream)
    # Without pre_buffer Arrow reads each column in one piece, which is what is compared. Files of earlier releases have
    # checksums of the pages' data alone.
    return pq.ParquetFile(
        _CheckedStream(stream, spans), metadata=metadata, page_checksum_verification=True, pre_buffer=False
    )
