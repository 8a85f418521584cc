"""The bytes that a row of an encoder's inputs refers to."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import pyarrow as pa

from schemas import locator
from schemas.errors import ConfigurationError, CorpusError
from schemas.formats import compression_of
from schemas.layout import LOCATOR
from transforms.encoders.base import MEDIA_BYTES
from transforms.encoders.media.file_part import FilePart
from transforms.encoders.media.members import MemberReader, ahead_of
from transforms.encoders.media.packed_members import open_member, read_member
from transforms.support.item_error import ItemError
from transforms.support.storage import filesystem
from transforms.support.storage.parquet_bytes import CellReader
from transforms.support.storage.target_file import TargetError, open_target
from transforms.support.storage.unpacked_file import UnpackError

MAX_BYTES = 512 << 20
"""A media file that is read whole may have so many bytes: an image, or a recording."""


class RefusedError(ItemError):
    """One input can't be embedded, and its item becomes a reject."""


def contents(inputs: pa.Table) -> Iterator[tuple[str, bytes | None]]:
    """The address of each row (see `schemas.locator`), and its bytes if they are in memory already.

    Args:
        inputs: with the columns `@uri` and `@locator`, and maybe `@bytes`; see `transforms.encoders.base.media_inputs`.
    """
    addresses = locator.addresses(inputs.column("@uri"), inputs.column(LOCATOR))
    if MEDIA_BYTES in inputs.column_names:
        yield from zip(addresses, (known.as_py() for known in inputs.column(MEDIA_BYTES)), strict=True)
    else:
        yield from contents_of(addresses)


def contents_of(addresses: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """Each address, with its bytes if these are read together with others: each for itself would cost far more.

    Cells of a Parquet file are read in order, and a PDF once for all its pages. Small members of a tar in an object
    store are read some MiB at once.
    """
    pages: tuple[str, bytes | None] = ("", None)
    with CellReader() as cells:
        members = MemberReader()
        for address, following in ahead_of(addresses):
            uri, place = locator.parsed(address)
            data = None
            if isinstance(place, locator.PdfPage):
                if pages[0] != uri:
                    pages = (uri, None)
                    with suppress(RefusedError, CorpusError):  # whoever opens it meets the same
                        pages = (uri, read(address))
                data = pages[1]
            elif isinstance(place, locator.Member) and not filesystem.is_local(uri) and not compression_of(uri):
                data = members.read(uri, place, following)
            elif isinstance(place, locator.Cell):
                with suppress(OSError, ValueError, KeyError, pa.ArrowException):  # whoever opens it meets the same
                    data = cells.read(uri, place)
            yield address, data


def read(address: str, most: int = MAX_BYTES) -> bytes:
    """All bytes of a file, or of a part of one.

    Args:
        address: see `schemas.locator`.

    Raises:
        RefusedError: `UnreadableMedia` where it does not exist or may not be read, `MediaTooLarge` above `most` bytes.
        CorpusError: any other failure of the storage; the run ends, and the same command resumes it.
    """
    uri, place = locator.parsed(address)
    try:
        if isinstance(place, locator.Member):
            if place.length > most:
                raise _too_large(most)
            if compression_of(uri):
                return read_member(uri, place.offset, place.length)
            return filesystem.read_range(uri, place.offset, place.length)
        if isinstance(place, locator.Cell):
            return _cell(uri, place)
        with _open(uri, place) as stream:
            data: bytes = stream.read(most + 1)
    except RefusedError:
        raise
    except Exception as error:
        raise _failed(uri, error) from error
    if len(data) > most:
        raise _too_large(most)
    return data


def _too_large(most: int) -> RefusedError:
    return RefusedError("MediaTooLarge", f"The file has more than {most >> 20} MiB")


@contextmanager
def opened(address: str, data: bytes | None) -> Iterator[BinaryIO]:
    """A file to seek in, for decoders that read a part of it; a part of a file is as if it were alone.

    Decoders take a failure of the storage for damage, or for the end. So the first one is kept, and raised at the end
    whatever the decoder made of it.

    Args:
        address: see `schemas.locator`.
        data: its bytes if they are in memory already.

    Raises:
        RefusedError: `UnreadableMedia` where it does not exist or may not be read.
        CorpusError: any other failure of the storage; the run ends, and the same command resumes it.
    """
    uri, place = locator.parsed(address)
    try:
        source: BinaryIO = io.BytesIO(data) if data is not None else _open(uri, place)
    except Exception as error:
        raise _failed(uri, error) from error
    with source:
        watched = _Watched(source)
        try:
            yield cast(BinaryIO, watched)
        finally:
            if watched.failure is not None:
                raise _failed(uri, watched.failure) from watched.failure


def _cell(uri: str, place: locator.Cell) -> bytes:
    try:
        with CellReader() as cells:
            return cells.read(uri, place)
    except (ValueError, KeyError, pa.ArrowException) as error:
        raise RefusedError("UnreadableMedia", f"The Parquet file can't be read: {error}") from error


def _open(uri: str, place: locator.Locator | None) -> BinaryIO:
    if isinstance(place, locator.Cell):
        return io.BytesIO(_cell(uri, place))
    if isinstance(place, locator.Target):
        return open_target(place, MAX_BYTES)
    if isinstance(place, locator.Member) and compression_of(uri):
        return open_member(uri, place)
    source = filesystem.open_binary(uri)
    if place is None or isinstance(place, locator.PdfPage):
        return source

    def read_at(offset: int, length: int) -> bytes:
        source.seek(offset)
        return source.read(length)

    return cast(BinaryIO, io.BufferedReader(FilePart(read_at, place.offset, place.length, source.close)))


class _Watched(io.RawIOBase):
    """A stream that keeps the first failure of another, and is at its end from then on."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._tried(lambda: self._source.read(len(buffer)), b"")
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._tried(lambda: self._source.seek(offset, whence), 0))

    def tell(self) -> int:
        return int(self._tried(self._source.tell, 0))

    def _tried(self, call: Any, otherwise: Any) -> Any:
        if self.failure is not None:
            return otherwise
        try:
            return call()
        except Exception as error:
            self.failure = error
            return otherwise


def _failed(uri: str, error: Exception) -> Exception:
    if isinstance(error, RefusedError):
        return error
    if isinstance(error, TargetError | UnpackError):
        return RefusedError(error.error, error.reason)
    if isinstance(error, CorpusError | ConfigurationError):
        return error
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return RefusedError("UnreadableMedia", f"The file can't be opened: {error.strerror or error}")
    return CorpusError(
        f"can't read {filesystem.as_text(uri)}: {error}",
        "run the same command again once the storage answers; nothing was lost",
    )
