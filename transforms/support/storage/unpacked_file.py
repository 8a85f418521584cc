"""The content of a compressed file, to seek in: the last part of it is in a temporary file, the rest is unpacked again.

A compressed file can be read from its start alone. Who reads it in its order, and goes back a bounded way, reads it
once: a tar with a member after another, or a film whose index is at its end.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import tempfile
import threading
import zlib
from typing import IO, Any, BinaryIO

from schemas.errors import ConfigurationError, CorpusError
from transforms.support.item_error import ItemError
from transforms.support.storage import xz

KEPT_BYTES = 1 << 30
"""Of the content in the temporary file: so far it is possible to go back."""
BLOCK_BYTES = 1 << 20
BOMB_BYTES = 1 << 30
BOMB_RATIO = 200
"""Content over `BOMB_BYTES` that is so many times what it is unpacked from is refused: media do not compress so."""


class UnpackError(ItemError):
    """The content, or the rest of it, can't be unpacked."""


class ClosedError(Exception):
    """Another thread closed the file."""


class UnpackedFile:
    """Content of a compressed file. Several threads may call `read_at`; `seek` and `read` are for one.

    Args:
        source: the compressed bytes, seekable; its failures are raised as they are.
        compression: gzip, zstd, bzip2 or xz.
        kept_bytes: see `KEPT_BYTES`.

    Raises:
        UnpackError: while it is read: `DamagedFile` where the compressed data is corrupt or ends early, `TooLarge` for
            a decompression bomb.
        CorpusError: if the disk of the temporary file is full.
        ConfigurationError: if `zstandard` is needed and not installed.
    """

    def __init__(self, source: BinaryIO, compression: str, kept_bytes: int = KEPT_BYTES) -> None:
        self._source = _Counted(source)
        self._compression = compression
        self._kept_bytes = kept_bytes
        self._block_bytes = min(BLOCK_BYTES, kept_bytes // 2)  # what is wanted stays when a block comes after it
        self._lock = threading.Lock()
        self._kept: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with this
        self._place = 0
        self.closed = False
        self._start()

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the content from a place on; fewer at its end."""
        parts: list[bytes] = []
        with self._lock:
            if self.closed:
                raise ClosedError
            while length > 0:
                size = min(length, self._block_bytes)
                if self._end - self._kept_bytes > offset:
                    self._start()
                while self._end < offset + size and self._advance():
                    pass
                part = self._from_kept(offset, min(size, self._end - offset))
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
                if len(part) < size:
                    break
        return b"".join(parts)

    def reaches(self, end: int) -> bool:
        """Whether the content has so many bytes: it is unpacked as far as that."""
        return end <= 0 or len(self.read_at(end - 1, 1)) == 1

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise io.UnsupportedOperation("the whole content of a compressed file is not read at once")
        data = self.read_at(self._place, size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of compressed content is not known before it is read")
        self._place = offset if whence == io.SEEK_SET else self._place + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self._kept.close()
            self._source.close()

    def __enter__(self) -> UnpackedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._source.rewind()
        self._end = 0
        self._reader, self._damages = _reader(self._source, self._compression)

    def _advance(self) -> bool:
        """Unpacks the next block; False at the end."""
        try:
            data: bytes = self._reader.read1(self._block_bytes)  # `read` would lose what is before the damage
        except self._damages as error:
            if self._source.failure is not None:
                raise self._source.failure from None
            if xz.needs_more_memory(error):
                raise UnpackError("TooLarge", xz.NEEDS_MEMORY) from error
            what = str(error) or "unexpected end"
            raise UnpackError(
                "DamagedFile", f"The {self._compression} data is corrupt or ends early: {what}"
            ) from error
        if not data:
            return False
        if self._end > BOMB_BYTES and self._end > BOMB_RATIO * self._source.count:
            raise UnpackError(
                "TooLarge",
                f"The {self._compression} data is a decompression bomb: {self._source.count:,} bytes of it have more "
                f"than {self._end:,} bytes of content",
            )
        self._keep(data)
        return True

    def _keep(self, data: bytes) -> None:
        # The temporary file is a ring: the oldest content is overwritten.
        at = self._end % self._kept_bytes
        first = data[: self._kept_bytes - at]
        try:
            for place, part in ((at, first), (0, data[len(first) :])):
                if part:
                    self._kept.seek(place)
                    self._kept.write(part)
            self._kept.flush()
        except OSError as error:
            raise CorpusError(
                f"unpacking into the temporary folder {tempfile.gettempdir()} failed: {error}",
                f"free {self._kept_bytes >> 20:,} MiB there, or set TMPDIR to a folder with more space",
            ) from error
        self._end += len(data)

    def _from_kept(self, offset: int, length: int) -> bytes:
        found = []
        while length > 0:
            at = offset % self._kept_bytes
            self._kept.seek(at)
            found.append(self._kept.read(min(length, self._kept_bytes - at)))
            offset, length = offset + len(found[-1]), length - len(found[-1])
        return b"".join(found)


class _Counted:
    """The compressed bytes: how many were read, and the failure of their source, which is not damage."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.close = source.close
        self.rewind()

    def rewind(self) -> None:
        self._source.seek(0)
        self.count = 0
        self.failure: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._source.read(size)
        except Exception as error:
            self.failure = error
            raise
        self.count += len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _reader(source: Any, compression: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """Reads the content from its start, and the errors of damage; a source that fails raises them too."""
    if compression == "gzip":
        return gzip.GzipFile(fileobj=source, mode="rb"), (OSError, EOFError, zlib.error)
    if compression == "bzip2":
        return bz2.BZ2File(source), (OSError, EOFError, ValueError)
    if compression == "xz":
        return xz.XzFile(source), (lzma.LZMAError, OSError, EOFError)
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise ConfigurationError(
            f"corpus.paths: zstandard is needed to read .zst files and can't be imported: {error}",
            "pip install vecbeam[documents]",
        ) from error
    # Without a limit of its own a frame may ask for a window of gigabytes; 128 MiB is what `zstd` writes at most
    # without --long.
    frames = zstandard.ZstdDecompressor(max_window_size=128 << 20)
    return frames.stream_reader(source, read_across_frames=True), (zstandard.ZstdError, OSError, EOFError, MemoryError)
