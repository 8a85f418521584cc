"""Bytes of a file, decompressed as they stream by, and lines of them. Memory is bounded whatever the file holds."""

from __future__ import annotations

import bz2
import errno
import importlib
import tempfile
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from types import ModuleType
from typing import Any, BinaryIO

from schemas.errors import ConfigurationError, CorpusError
from transforms.read.listing.files import SourceFile
from transforms.support import memory
from transforms.support.storage import filesystem

BLOCK_BYTES = 1 << 20
"""What is read and decompressed at once."""
REST_BYTES = 64 << 10
"""What is read at once where only the rest of a record is wanted."""
MAX_RECORD_BYTES = 64 << 20
"""A line, a CSV record or a text file longer than this is rejected, so that one of them can't fill the memory."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_WINDOW_BYTES = 1 << 31
"""Longest window of zstd, which `zstd --long=31` writes; only as much of it as there is content takes memory."""
_MAGIC = {"gzip": (b"\x1f\x8b",), "bzip2": (b"BZh",), "zstd": (b"\x28\xb5\x2f\xfd",)}


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
        """The same, met after a place."""
        return FileRejectedError(self.error, self.reason, place)


def import_for_documents(name: str) -> ModuleType:
    """Imports a library of the extra `documents` when it is first used.

    Raises:
        ConfigurationError: where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"corpus.paths: {name} is needed to read these files and can't be imported: {error}",
            "pip install vecbeam[documents]",
        ) from error


class RawStream:
    """A file as it lies in storage, which counts what is read and tells its own failures from damaged content.

    Args:
        file: what to open.
        block_bytes: what is read and decompressed at once, in bytes; what is read does not depend on it.

    Raises:
        FileRejectedError: `UnreadableFile` where it is not there or may not be read.
        CorpusError: any other failure of the storage; the run ends, and the same command takes it up again.
    """

    def __init__(self, file: SourceFile, block_bytes: int = BLOCK_BYTES) -> None:
        self._file = file
        self.block_bytes = block_bytes
        self.bytes_read = 0
        self.failure: Exception | None = None
        self._stream: BinaryIO = self._guarded(lambda: filesystem.open_binary(file.uri))

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._guarded(lambda: self._stream.read(size))
        self.bytes_read += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._guarded(lambda: self._stream.seek(offset, whence))
        return self.tell()

    def tell(self) -> int:
        return self._stream.tell()

    def rewind(self) -> None:
        """Back to the beginning; what was read so far is not counted."""
        self.seek(0)
        self.bytes_read = 0

    def blocks(self, size: int | None = None, end: int | None = None) -> Iterator[bytes]:
        """Blocks from here on; past `end`, small ones, as only the rest of a line is wanted."""
        size = min(size or self.block_bytes, self.block_bytes)
        position = self.tell() if end is not None else 0
        while block := self.read(
            size if end is None or position + size <= end else max(end - position, min(size, REST_BYTES))
        ):
            position += len(block)
            yield block

    def close(self) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return self._stream.closed

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


def blocks(raw: RawStream, file: SourceFile) -> Iterator[bytes]:
    """The content of a file from where `raw` stands, decompressed, in blocks of at most some MiB.

    Raises:
        FileRejectedError: `DamagedFile` where the compressed data is corrupt or ends early, `TooLarge` where it needs
            more memory than there is; what came before is out.
    """
    if not file.compression:
        yield from raw.blocks()
        return
    start = {"gzip": _start_gzip, "bzip2": _start_bzip2, "zstd": _start_zstd}[file.compression]
    decompress, damages = start(raw.block_bytes)
    beginning = b""
    try:
        for compressed in raw.blocks(16 << 10):
            beginning = beginning or compressed[:4]
            yield from decompress(compressed)
        yield from decompress(b"")
    except damages as error:
        reason = _not_compressed(file.compression, beginning) or (
            f"The {file.compression} data is corrupt or ends early: {str(error) or 'unexpected end'}"
        )
        if "ictionary" in str(error):
            reason = f"The {file.compression} data was compressed with a dictionary, and can't be read without it"
        raise FileRejectedError("DamagedFile", reason) from error


def _not_compressed(compression: str, beginning: bytes) -> str:
    """What to say of a file whose suffix promises a compression that its first bytes have not."""
    magics = _MAGIC[compression]
    if compression == "zstd" and beginning[1:4] == b"\x2a\x4d\x18":  # a frame to be skipped
        return ""
    if any(magic.startswith(beginning[: len(magic)]) for magic in magics):
        return ""
    return f"The file is not {compression}, though its suffix says so: it begins with {beginning!r}"


Decompress = Callable[[bytes], Iterator[bytes]]
"""Takes compressed bytes and yields what they hold; b"" is the end, which raises EOFError inside a stream."""
Start = tuple[Decompress, tuple[type[Exception], ...]]
"""A decompression, and what it raises for damaged data."""


def _start_gzip(block_bytes: int) -> Start:
    state: dict[str, Any] = {"member": None}

    def decompress(data: bytes) -> Iterator[bytes]:
        if not data and state["member"] is not None:
            raise EOFError
        output = b""
        while data or len(output) == block_bytes:  # a full output may leave more inside
            if state["member"] is None:
                data = data.lstrip(b"\0") if state.get("any") else data  # tape blocks are padded with zeros
                if not data:
                    return
                state.update(member=zlib.decompressobj(wbits=31), any=True)
            member = state["member"]
            output = member.decompress(data, block_bytes)
            if output:
                yield output
            if member.eof:
                data, state["member"], output = member.unused_data, None, b""
            else:
                data = member.unconsumed_tail

    return decompress, (zlib.error, EOFError)


def _start_bzip2(block_bytes: int) -> Start:
    state: dict[str, Any] = {"member": None}

    def decompress(data: bytes) -> Iterator[bytes]:
        if not data and state["member"] is not None:
            raise EOFError
        while data:
            member = state["member"] = state["member"] or bz2.BZ2Decompressor()
            output = member.decompress(data, block_bytes)
            while output:
                yield output
                output = b"" if member.eof or member.needs_input else member.decompress(b"", block_bytes)
            data = b""
            if member.eof:
                data, state["member"] = member.unused_data, None

    return decompress, (OSError, ValueError, EOFError)


_ZSTD_INPUT_BYTES = 1024
"""At most 32 MiB come out of it: a block of 128 KiB can be stored in 4 bytes."""


def _start_zstd(block_bytes: int) -> Start:
    zstandard = import_for_documents("zstandard")
    state: dict[str, Any] = {"frame": None, "header": b""}

    held = 0  # bytes of the frame since the last look at the memory: its window fills with them

    def pieces(data: bytes) -> Iterator[bytes]:
        nonlocal held
        for begin in range(0, len(data), _ZSTD_INPUT_BYTES):
            piece = data[begin : begin + _ZSTD_INPUT_BYTES]
            while piece:
                if state["frame"] is None:
                    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
                    state.update(frame=decompressor.decompressobj(), header=b"")
                    held = 0
                frame = state["frame"]
                if len(state["header"]) < _ZSTD_HEADER_BYTES:
                    state["header"] += piece[:_ZSTD_HEADER_BYTES]
                if held >= _ZSTD_CHECK_BYTES:
                    held = 0
                    if (
                        _zstd_window(state["header"]) > 2 * _ZSTD_CHECK_BYTES
                        and memory.available() < LEAST_MEMORY_BYTES
                    ):
                        raise FileRejectedError(*_zstd_needs_memory(state["header"]))
                try:
                    output = frame.decompress(piece)
                except (zstandard.ZstdError, MemoryError) as error:
                    if isinstance(error, MemoryError) or "memory" in str(error):
                        raise FileRejectedError(*_zstd_needs_memory(state["header"])) from error
                    raise
                if output:
                    held += len(output)
                    yield output
                piece = b""
                if frame.eof:
                    piece, state["frame"] = frame.unused_data, None

    def decompress(data: bytes) -> Iterator[bytes]:
        if not data and state["frame"] is not None:
            raise EOFError
        gathered: list[bytes] = []
        size = 0
        try:
            for output in pieces(data):
                gathered.append(output)
                size += len(output)
                if size >= block_bytes:
                    yield b"".join(gathered)
                    gathered, size = [], 0
        except Exception:
            if gathered:
                yield b"".join(gathered)  # what came before the damage
            raise
        if gathered:
            yield b"".join(gathered)

    return decompress, (zstandard.ZstdError, EOFError)


_ZSTD_HEADER_BYTES = 18
_ZSTD_CHECK_BYTES = 32 << 20
"""So many bytes of content are read between two looks at the memory."""
LEAST_MEMORY_BYTES = 256 << 20
"""Of the machine, or of the container, which are left to others while a window fills."""


def _zstd_window(header: bytes) -> int:
    """Bytes of a frame's window; 0 where its header is not complete or not a frame's."""
    if len(header) < 6 or not header.startswith(_MAGIC["zstd"]):
        return 0
    # RFC 8878, 3.1.1.1: a descriptor follows the magic number, and then the window, or in frames of a single segment
    # the size of the content, which is their window, behind the id of a dictionary.
    descriptor = header[4]
    if not descriptor & 0x20:
        base = 1 << (10 + (header[5] >> 3))
        return base + base // 8 * (header[5] & 7)
    begin, length = 5 + (0, 1, 2, 4)[descriptor & 3], (1, 2, 4, 8)[descriptor >> 6]
    size = header[begin : begin + length]
    return int.from_bytes(size, "little") + (256 if length == 2 else 0) if len(size) == length else 0


def _zstd_needs_memory(header: bytes) -> tuple[str, str]:
    window = _zstd_window(header)
    if window > MAX_WINDOW_BYTES:
        return (
            "TooLarge",
            f"The zstd data has a window of {window >> 20} MiB, over the {MAX_WINDOW_BYTES >> 20} MiB that can be "
            "read; compress it again with --long=31 or less",
        )
    return (
        "TooLarge",
        f"The memory of this worker is not enough for the zstd window of {window >> 20} MiB; use a larger worker, or "
        "compress it again without --long",
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
    r"""Lines of blocks as (byte offset, line without its \n); None in place of one longer than MAX_RECORD_BYTES.

    Args:
        content: blocks of bytes, the first of which stands at `offset`.
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


def whole(raw: RawStream, file: SourceFile, limit: int) -> bytes:
    """The whole decompressed content of a small file.

    Raises:
        FileRejectedError: `DamagedFile`, or `TooLarge` over `limit` bytes.
    """
    parts: list[bytes] = []
    size = 0
    for block in blocks(raw, file):
        size += len(block)
        if size > limit:
            raise FileRejectedError("TooLarge", f"The file holds more than {limit >> 20} MiB")
        parts.append(block)
    return b"".join(parts)


def seekable(raw: RawStream, file: SourceFile) -> BinaryIO | RawStream:
    """The stream itself, or a temporary file with its decompressed content, for formats that are read from the end."""
    if not file.compression:
        return raw
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    for block in blocks(raw, file):
        unpacked.write(block)
    unpacked.seek(0)
    return unpacked
