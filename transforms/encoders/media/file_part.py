"""A part of a file as a stream of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any


class FilePart(io.RawIOBase):
    """Some bytes of a file, to seek in.

    Args:
        read_at: gives so many bytes of the file from a place on, fewer at its end.
        offset, length: which bytes.
        close: called when this is closed.
    """

    def __init__(
        self,
        read_at: Callable[[int, int], bytes],
        offset: int,
        length: int,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self._read_at, self._offset, self._length, self._close = read_at, offset, length, close
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._length - self._position)
        if wanted <= 0:
            return 0
        data = self._read_at(self._offset + self._position, wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"can't seek to {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()
