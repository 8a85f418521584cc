"""Bytes of a file as stored, and lines of bytes. Memory is bounded whatever the file holds."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from types import ModuleType
from typing import Any, BinaryIO

from schemas.errors import ConfigurationError, CorpusError
from transforms.read.listing.files import SourceFile
from transforms.support.storage import filesystem

BLOCK_BYTES = 1 << 20
"""Bytes that are read and decompressed at once."""
REST_BYTES = 64 << 10
"""Bytes that are read at once if only the rest of a record is needed."""
MAX_RECORD_BYTES = 64 << 20
"""A line, a CSV record or a text file longer than this is rejected, so that one of them can't fill the memory."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


_GONE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, filesystem.NotRegularFileError)


class FileRejectedError(Exception):
    """A whole file, or the rest of it, can't be read; becomes one reject.

    Args:
        error: CamelCase and countable.
        reason: a sentence.
        place: after which place of the file the rest is lost; "" for all of it.
    """

    def __init__(self, error: str, reason: str, place: str = "") -> None:
        super().__init__(error, reason, place)
        self.error = error
        self.reason = reason
        self.place = place

    def after(self, place: str) -> FileRejectedError:
        """The same error, after a place in the file."""
        return FileRejectedError(self.error, self.reason, place)


def import_for_documents(name: str) -> ModuleType:
    """Imports a library of the extra `documents` when it is first used.

    Raises:
        ConfigurationError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"corpus.paths: {name} is needed to read these files and can't be imported: {error}",
            "pip install vecbeam[documents]",
        ) from error


class RawStream:
    """A file as stored, which counts the bytes read and distinguishes its own failures from damaged content.

    Args:
        file: what to open.
        block_bytes: bytes that are read and decompressed at once; the content does not depend on it.

    It is opened when it is first read: a media file is only referred to here.

    Raises:
        FileRejectedError: at its first use, `UnreadableFile` where it does not exist or may not be read.
        CorpusError: any other failure of the storage; the run ends, and the same command resumes it.
    """

    def __init__(self, file: SourceFile, block_bytes: int = BLOCK_BYTES) -> None:
        self._file = file
        self.block_bytes = block_bytes
        self.bytes_read = 0
        self.failure: Exception | None = None
        self._closed = False

    @cached_property
    def _stream(self) -> BinaryIO:
        opened: BinaryIO = self._guarded(lambda: filesystem.open_binary(self._file.uri))
        return opened

    def read(self, size: int = -1) -> bytes:
        stream = self._stream
        data: bytes = self._guarded(lambda: stream.read(size))
        self.bytes_read += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        stream = self._stream
        self._guarded(lambda: stream.seek(offset, whence))
        return self.tell()

    def tell(self) -> int:
        return self._stream.tell()

    def rewind(self) -> None:
        """Returns to the beginning; the bytes read so far are not counted."""
        self.seek(0)
        self.bytes_read = 0

    def blocks(self, size: int | None = None, end: int | None = None) -> Iterator[bytes]:
        """Blocks from here on; after `end` small ones, as only the rest of a line is needed."""
        size = min(size or self.block_bytes, self.block_bytes)
        position = self.tell() if end is not None else 0
        while block := self.read(
            size if end is None or position + size <= end else max(end - position, min(size, REST_BYTES))
        ):
            position += len(block)
            yield block

    def close(self) -> None:
        self._closed = True
        if "_stream" in self.__dict__:
            self._stream.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def __enter__(self) -> RawStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            self.failure = _translated(self._file, error)
            raise self.failure from error


def _translated(file: SourceFile, error: Exception) -> Exception:
    code = getattr(error, "code", None) or getattr(error, "status_code", None)
    gone = isinstance(error, _GONE) or getattr(error, "errno", None) in (errno.ELOOP, errno.ENAMETOOLONG)
    # Beam's S3 client reports a missing object as a bare OSError.
    if gone or code in (401, 403, 404) or (isinstance(error, OSError) and "Not found" in str(error)):
        return FileRejectedError("UnreadableFile", f"The file can't be opened: {error}")
    return CorpusError(
        f"reading {file.shown} failed: {error}", "run the same command again; what is done so far is kept"
    )


def peeked(content: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes of blocks, and all of them."""
    beginning = b""
    for block in content:
        beginning += block
        if len(beginning) >= size:
            break
    return beginning, chain([beginning], content) if beginning else content


def lines(content: Iterator[bytes], offset: int, end: int | None) -> Iterator[tuple[int, bytes | None]]:
    r"""Lines of blocks as (byte offset, line without its \n); None instead of one longer than MAX_RECORD_BYTES.

    Args:
        content: blocks of bytes, the first of which begins at `offset`.
        offset: of the first line; a byte order mark at 0 is left out.
        end: lines that start at or after it are not yielded; None for all.
    """
    pending: list[bytes] = []
    pending_bytes = 0
    for block in content:
        first, newline, rest = block.partition(b"\n")
        pending_bytes += len(first)
        if pending_bytes <= MAX_RECORD_BYTES:
            pending.append(first)
        else:
            pending.clear()
        if not newline:
            continue
        complete = rest.split(b"\n")
        tail = complete.pop()
        if end is not None and offset >= end:
            return
        yield _line(offset, pending, pending_bytes)
        offset += pending_bytes + 1
        for line in complete:
            if end is not None and offset >= end:
                return
            yield offset, line if len(line) <= MAX_RECORD_BYTES else None
            offset += len(line) + 1
        pending, pending_bytes = [tail], len(tail)
        if end is not None and offset >= end:
            return
    if pending_bytes and (end is None or offset < end):
        yield _line(offset, pending, pending_bytes)


def _line(offset: int, pending: list[bytes], size: int) -> tuple[int, bytes | None]:
    if size > MAX_RECORD_BYTES:
        return offset, None
    line = b"".join(pending)
    return offset, line.removeprefix(BYTE_ORDER_MARK) if offset == 0 else line


def lines_with_ends(content: Iterator[bytes], offset: int) -> Iterator[tuple[int, bytes | None]]:
    r"""Lines that end in \n, \r\n or \r as (byte offset, line with its end), as `lines` without an end."""
    pending: list[bytes] = []
    pending_bytes = 0
    held = b""  # a \r at the end of a block: a \n may follow

    def piled(piece: bytes) -> None:
        nonlocal pending_bytes
        pending_bytes += len(piece)
        if pending_bytes <= MAX_RECORD_BYTES:
            pending.append(piece)
        else:
            pending.clear()

    for block in content:
        data = held + block
        held = b""
        if data.endswith(b"\r"):
            data, held = data[:-1], b"\r"
        for piece in data.splitlines(keepends=True):
            piled(piece)
            if piece.endswith((b"\n", b"\r")):
                yield _line(offset, pending, pending_bytes)
                offset += pending_bytes
                pending, pending_bytes = [], 0
    if held:
        piled(held)
    if pending_bytes:
        yield _line(offset, pending, pending_bytes)
