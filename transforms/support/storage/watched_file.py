"""A file of the checkpoint, open for reading: what is missing, what is damaged, and what the store fails to give."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from schemas.errors import CheckpointError, StorageError
from transforms.support.storage import filesystem
from transforms.support.storage.storage_errors import is_missing, storage_error


class _Watched(io.RawIOBase):
    """A stream that remembers what failed below it, and so tells a fault of the store from one of the file."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self.fault: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        with self._watching():
            return self._stream.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._watching():
            return self._stream.seek(offset, whence)

    def tell(self) -> int:
        with self._watching():
            return self._stream.tell()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.fault = error
            raise


@contextlib.contextmanager
def parsing(uri: str, stream: BinaryIO) -> Iterator[Any]:
    """A stream of a file while it is parsed.

    Raises:
        CheckpointError: where the file is damaged.
        StorageError: where the store fails.
    """
    watched = _Watched(stream)
    try:
        yield watched
    except Exception as error:
        if watched.fault is not None:
            raise storage_error("read", uri, watched.fault) from error
        if isinstance(error, StorageError) or not isinstance(error, (pa.ArrowException, OSError, UnicodeDecodeError)):
            raise
        raise damaged(uri, error) from error


@contextlib.contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """A file of the checkpoint, open for reading.

    Raises:
        CheckpointError: where it is missing.
        StorageError: where the store fails, or refuses.
    """
    try:
        stream = filesystem.open_binary(uri)
    except OSError as error:
        if is_missing(error):
            raise CheckpointError(
                f"{uri} is missing", "run vecbeam sync: what it held is embedded again, from the corpus"
            ) from error
        raise storage_error("read", uri, error) from error
    with stream:
        yield stream


def damaged(uri: str, error: Exception) -> CheckpointError:
    """The error of a file whose content can't be read, though the store gave all of it."""
    return CheckpointError(
        f"can't read {uri}: the file is damaged: {type(error).__name__}: {error}",
        "delete that file and run the same command again: what it held is made again, from the corpus",
    )
