"""An object as a file to read: in ranges, which grow during a sequential read."""

from __future__ import annotations

import io
from typing import Any

from transforms.support.storage.remote import object_store
from transforms.support.storage.remote.answer import AnswerError, ConditionError

FIRST_BYTES = 256 << 10
"""Bytes read when it is opened: all of most files."""
SEEK_BYTES = 64 << 10
"""Fewest bytes read after a seek."""
MOST_BYTES = 8 << 20
_NOTHING_THERE = 416


class StoredFile(io.RawIOBase):
    """A file of an object store, in one version from its first byte to its last.

    Raises:
        FileNotFoundError: if it does not exist.
        ConditionError: on reading, if it was overwritten after it was opened.
    """

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._start, self._position, self._next_bytes = 0, 0, FIRST_BYTES
        try:
            self._block, self._facts = object_store.read(uri, 0, FIRST_BYTES)
        except AnswerError as error:
            if error.code != _NOTHING_THERE:  # of an empty object there is no range
                raise
            self._block, self._facts = object_store.read(uri)

    @property
    def whole(self) -> bytes | None:
        """All of the object, if that was read when it was opened."""
        return self._block if self._start == 0 and len(self._block) == self._facts.size else None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._facts.size}[whence]
        if base + offset < 0:
            raise ValueError(f"can't seek to {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._facts.size - self._position)
        if wanted <= 0:
            return 0
        end = self._start + len(self._block)
        if not self._start <= self._position < end:
            self._fetch(wanted, follows=self._position == end)
        at = self._position - self._start
        data = self._block[at : at + wanted]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, wanted: int, *, follows: bool) -> None:
        self._next_bytes = min(2 * self._next_bytes, MOST_BYTES) if follows else SEEK_BYTES
        try:
            self._block, _ = object_store.read(
                self._uri, self._position, max(wanted, self._next_bytes), self._facts.e_tag
            )
        except ConditionError as error:
            raise ConditionError("it was written again while it was read") from error
        self._start = self._position
