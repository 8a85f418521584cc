"""The content of files that may be compressed (gzip, bzip2, xz, zstd), as it streams by. Memory is bounded."""

from __future__ import annotations

import bz2
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from transforms.read.listing.files import SourceFile
from transforms.read.stream import FileRejectedError, RawStream, import_for_documents
from transforms.support import memory
from transforms.support.storage import xz

MAX_WINDOW_BYTES = 1 << 31
"""Longest window of zstd, which `zstd --long=31` writes; only as much of it as there is content takes memory."""
LEAST_MEMORY_BYTES = 256 << 20
"""Bytes of the machine's or the container's memory that stay free while a window fills."""
_MAGIC = {
    "gzip": (b"\x1f\x8b",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\0",),
    "zstd": (b"\x28\xb5\x2f\xfd",),
}
_ZSTD_HEADER_BYTES = 18
_ZSTD_CHECK_BYTES = 32 << 20
"""Bytes of content between two checks of the memory."""
_ZSTD_INPUT_BYTES = 1024
"""Its output is at most 32 MiB: a block of 128 KiB can be stored in 4 bytes."""

Decompress = Callable[[bytes], Iterator[bytes]]
"""Takes compressed bytes and yields what they hold; b"" is the end, which raises EOFError inside a stream."""
Start = tuple[Decompress, tuple[type[Exception], ...]]
"""A decompressor, and the errors that it raises for damaged data."""


def blocks(raw: RawStream, file: SourceFile) -> Iterator[bytes]:
    """The content of a file from the position of `raw`, decompressed, in blocks of at most some MiB.

    Raises:
        FileRejectedError: `DamagedFile` where the compressed data is corrupt or ends early, `TooLarge` where it needs
            more memory than available; earlier content was yielded.
    """
    if not file.compression:
        yield from raw.blocks()
        return
    start = {"gzip": _start_gzip, "bzip2": _start_bzip2, "xz": _start_xz, "zstd": _start_zstd}[file.compression]
    decompress, damages = start(raw.block_bytes)
    beginning = b""
    try:
        for compressed in raw.blocks(16 << 10):
            beginning = beginning or compressed[:4]
            yield from decompress(compressed)
        yield from decompress(b"")
    except damages as error:
        if xz.needs_more_memory(error):
            raise FileRejectedError("TooLarge", xz.NEEDS_MEMORY) from error
        reason = _not_compressed(file.compression, beginning) or (
            f"The {file.compression} data is corrupt or ends early: {str(error) or 'unexpected end'}"
        )
        if "ictionary" in str(error):
            reason = f"The {file.compression} data was compressed with a dictionary, and can't be read without it"
        raise FileRejectedError("DamagedFile", reason) from error


def _not_compressed(compression: str, beginning: bytes) -> str:
    """The error for a file whose suffix names a compression that its first bytes do not have."""
    magics = _MAGIC[compression]
    if compression == "zstd" and beginning[1:4] == b"\x2a\x4d\x18":  # a frame to be skipped
        return ""
    if any(magic.startswith(beginning[: len(magic)]) for magic in magics):
        return ""
    return f"The file is not {compression}, though its suffix says so: it begins with {beginning!r}"


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
    return _concatenated(bz2.BZ2Decompressor, block_bytes), (OSError, ValueError, EOFError)


def _start_xz(block_bytes: int) -> Start:
    return _concatenated(xz.decompressor, block_bytes, padding=b"\0"), (lzma.LZMAError, EOFError)


def _concatenated(start: Callable[[], Any], block_bytes: int, padding: bytes = b"") -> Decompress:
    """Decompresses streams that follow one another, with a decompressor of `bz2` or `lzma` for each.

    Args:
        padding: byte of which there may be any number between and after streams.
    """
    state: dict[str, Any] = {"member": None}

    def decompress(data: bytes) -> Iterator[bytes]:
        if not data and state["member"] is not None:
            raise EOFError
        while data:
            if state["member"] is None and state.get("any"):
                data = data.lstrip(padding)
                if not data:
                    return
            member = state["member"] = state["member"] or start()
            state["any"] = True
            output = member.decompress(data, block_bytes)
            while output:
                yield output
                output = b"" if member.eof or member.needs_input else member.decompress(b"", block_bytes)
            data = b""
            if member.eof:
                data, state["member"] = member.unused_data, None

    return decompress


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


def _zstd_window(header: bytes) -> int:
    """Bytes of a frame's window; 0 if its header is not complete or not a frame's."""
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
