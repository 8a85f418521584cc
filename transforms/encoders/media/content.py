"""The bytes that a row of an encoder's inputs refers to."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pyarrow as pa

from schemas.errors import CorpusError
from schemas.layout import LOCATOR
from transforms.encoders.base import MEDIA_BYTES
from transforms.support.storage import filesystem

MAX_BYTES = 512 << 20
"""A media file that is read whole may have so many bytes: an image, or a recording."""


class RefusedError(Exception):
    """One input can't be embedded, and its item becomes a reject.

    Args:
        error: CamelCase and countable.
        reason: a sentence.
    """

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason


def contents(inputs: pa.Table) -> Iterator[tuple[str, bytes | None]]:
    """The URI of each row, and its bytes if they are in memory already.

    Args:
        inputs: with the columns `@uri` and `@locator`, and maybe `@bytes`; see `transforms.encoders.base.media_inputs`.
    """
    uris = inputs.column("@uri").to_pylist()
    known = inputs.column(MEDIA_BYTES) if MEDIA_BYTES in inputs.column_names else None
    assert not any(inputs.column(LOCATOR).to_pylist()), "members of containers are not read yet"
    for row, uri in enumerate(uris):
        yield uri, None if known is None else known[row].as_py()


def read(uri: str, most: int = MAX_BYTES) -> bytes:
    """All bytes of a file.

    Raises:
        RefusedError: `UnreadableMedia` where it does not exist or may not be read, `MediaTooLarge` above `most` bytes.
        CorpusError: any other failure of the storage; the run ends, and the same command resumes it.
    """
    try:
        with filesystem.open_binary(uri) as stream:
            data: bytes = stream.read(most + 1)
    except Exception as error:
        raise _failed(uri, error) from error
    if len(data) > most:
        raise RefusedError("MediaTooLarge", f"The file has more than {most >> 20} MiB")
    return data


@contextmanager
def opened(uri: str, data: bytes | None) -> Iterator[BinaryIO]:
    """A file to seek in, for decoders that read a part of it.

    Decoders take a failure of the storage for damage, or for the end. So the first one is kept, and raised at the end
    whatever the decoder made of it.

    Args:
        data: its bytes if they are in memory already.

    Raises:
        RefusedError: `UnreadableMedia` where it does not exist or may not be read.
        CorpusError: any other failure of the storage; the run ends, and the same command resumes it.
    """
    try:
        source: BinaryIO = io.BytesIO(data) if data is not None else filesystem.open_binary(uri)
    except Exception as error:
        raise _failed(uri, error) from error
    with source:
        watched = _Watched(source)
        try:
            yield cast(BinaryIO, watched)
        finally:
            if watched.failure is not None:
                raise _failed(uri, watched.failure) from watched.failure


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
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return RefusedError("UnreadableMedia", f"The file can't be opened: {error.strerror or error}")
    return CorpusError(
        f"can't read {filesystem.as_text(uri)}: {error}",
        "run the same command again once the storage answers; nothing was lost",
    )
