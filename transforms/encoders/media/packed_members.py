"""Members of compressed tars: a worker keeps the tars open from which it read last, unpacked as far as it read.

The items of a shard are embedded in the order of its tar, batch by batch, so that a worker unpacks a tar once. A batch
that is embedded on another worker, or again, costs the unpacking of what is before it.
"""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from schemas.formats import compression_of
from schemas.locator import Member
from transforms.encoders.media.file_part import FilePart
from transforms.support.storage import filesystem
from transforms.support.storage.unpacked_file import KEPT_BYTES, ClosedError, UnpackedFile, UnpackError

MOST_OPEN = 2
"""Tars that a process keeps open, each with a temporary file of up to `KEPT_BYTES`."""
CHECKED_SECONDS = 30
"""So often a tar in an object store is compared with the one that is open."""
BUFFER_BYTES = 256 << 10


@dataclass
class _Open:
    content: UnpackedFile
    version: tuple[Any, ...]
    checked: float


_tars: OrderedDict[str, _Open] = OrderedDict()
_lock = threading.Lock()


def read_member(uri: str, offset: int, length: int) -> bytes:
    """Bytes of a compressed tar; fewer at its end.

    Raises:
        UnpackError, OSError, CorpusError: see `UnpackedFile`, and the failures of the storage.
    """
    while True:
        with suppress(ClosedError):  # by a thread that needed other tars
            return _content(uri).read_at(offset, length)


def open_member(uri: str, member: Member) -> BinaryIO:
    """A member of a compressed tar, to seek in.

    Raises:
        UnpackError: if it is longer than what can be sought in, or the tar is damaged.
    """
    if member.length > KEPT_BYTES:
        raise UnpackError(
            "MediaTooLarge",
            f"The member {member.name!r} of a compressed tar has {member.length >> 20:,} MiB; {KEPT_BYTES >> 20:,} MiB "
            "are read at most: decompress the tar",
        )
    part = FilePart(lambda place, size: read_member(uri, place, size), member.offset, member.length)
    return cast(BinaryIO, io.BufferedReader(part, BUFFER_BYTES))


def release_tars() -> None:
    """Closes the tars that are open, and removes their temporary files."""
    with _lock:
        while _tars:
            _tars.popitem()[1].content.close()


def _content(uri: str) -> UnpackedFile:
    with _lock:
        known = _tars.get(uri)
        is_fresh = known is not None and time.monotonic() - known.checked < CHECKED_SECONDS
        if known is not None and is_fresh and not filesystem.is_local(uri):
            _tars.move_to_end(uri)
            return known.content
        found = filesystem.find(uri)
        if found is None:
            raise FileNotFoundError(2, "No such file", uri)
        version = (found.size, found.modified, found.version)
        if known is not None and known.version == version:
            known.checked = time.monotonic()
            _tars.move_to_end(uri)
            return known.content
        if known is not None:
            _tars.pop(uri).content.close()
        while len(_tars) >= MOST_OPEN:
            _tars.popitem(last=False)[1].content.close()
        content = UnpackedFile(filesystem.open_binary(uri), compression_of(uri))
        _tars[uri] = _Open(content, version, time.monotonic())
        return content
