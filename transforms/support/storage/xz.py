"""Streams of xz, which may ask for gigabytes of memory: those that do are refused."""

from __future__ import annotations

import lzma
from typing import Any

MOST_MEMORY = 130 << 20
"""Bytes, which a dictionary of 128 MiB needs; `xz -9` has one of 64 MiB."""
NEEDS_MEMORY = (
    f"The xz data needs more than the {MOST_MEMORY >> 20} MiB of memory that it may take; compress it again with "
    "--lzma2=dict=128MiB or less, such as xz -9"
)


def decompressor() -> lzma.LZMADecompressor:
    """Of one stream."""
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MOST_MEMORY)


def needs_more_memory(error: Exception) -> bool:
    """Whether the data would need more than `MOST_MEMORY`."""
    return isinstance(error, lzma.LZMAError) and "limit" in str(error)


class XzFile:
    """The content of a file of one stream after another, as it is read.

    Args:
        source: the compressed bytes.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self._stream = decompressor()

    def read1(self, size: int) -> bytes:
        """Some bytes of the content; none at its end.

        Raises:
            lzma.LZMAError: if the data is damaged, or needs too much memory.
            EOFError: if it ends early.
        """
        output = b""
        while not output:
            data = b""
            if self._stream.eof:
                data = self._after_stream()
                if not data:
                    break
                self._stream = decompressor()
            elif self._stream.needs_input:
                data = self._source.read(64 << 10)
                if not data:
                    raise EOFError("it ends within a stream")
            output = self._stream.decompress(data, size)
        return output

    def _after_stream(self) -> bytes:
        """The beginning of the next stream; none at the end."""
        data: bytes = self._stream.unused_data.lstrip(b"\0")
        while not data and (read := self._source.read(64 << 10)):
            data = read.lstrip(b"\0")
        return data
