"""The members of a tar, by their headers: nothing is extracted, and of a member's bytes only what the caller reads.

Python's tarfile ends silently at a damaged or missing header, and remembers each member. So it parses the headers
here, one at a time, and this module finds them.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from transforms.read.listing.files import SourceFile
from transforms.read.stream import RawStream
from transforms.support.storage import filesystem
from transforms.support.storage.unpacked_file import UnpackedFile, UnpackError

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER_BYTES = 1 << 20
"""Of an extended header, which holds long names: more is damage, or an attack on the memory."""
KEPT_BYTES = 64 << 20
"""Of an unpacked tar: who reads its members goes back to the begin of a sample at most."""
_ZEROS_AT_ONCE = 64 << 10
TarStream = RawStream | UnpackedFile
_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]")


class TarMember(NamedTuple):
    """A file, or what should be one.

    Attributes:
        name: as valid text, without "./" at its begin.
        offset: of its first byte in the tar.
        length: in bytes.
        error: CamelCase and countable, if it must not be read; else "".
        reason: a sentence that says why.
    """

    name: str
    offset: int
    length: int
    error: str = ""
    reason: str = ""


class DamagedTarError(Exception):
    """The tar can't be read from here on.

    Args:
        reason: a sentence.
        name: of the member that is cut; "" if it is not known.
        error: CamelCase and countable.
    """

    def __init__(self, reason: str, name: str = "", error: str = "DamagedFile") -> None:
        super().__init__(reason, name, error)
        self.reason = reason
        self.name = name
        self.error = error


def tar_stream(raw: RawStream, file: SourceFile) -> TarStream:
    """The bytes of the tar that a file is, or that is compressed in it; who calls closes it."""
    return UnpackedFile(cast(BinaryIO, raw), file.compression, KEPT_BYTES) if file.compression else raw


def members(raw: TarStream) -> Iterator[TarMember]:
    """The members of a tar that are not folders, in its order; the caller may seek and read meanwhile.

    Tars that follow one another in the file are read as one.

    Raises:
        DamagedTarError: after the whole members, if the tar is damaged, or ends without its end-of-archive block.
        stream.FileRejectedError, CorpusError: if the file can't be read.
    """
    name = ""
    try:
        for member in _members(raw):
            name = member.name
            yield member
    except UnpackError as error:
        after = f", after the member {name!r}" if name else ""
        raise DamagedTarError(f"{error.reason}{after}", error=error.error) from error


def _members(raw: TarStream) -> Iterator[TarMember]:
    size = raw.seek(0, 2) if isinstance(raw, RawStream) else None
    raw.seek(0)
    if not raw.read(1):
        raise DamagedTarError("The file has no bytes")
    tar = _Headers(fileobj=_Bounded(raw), mode="r")  # type: ignore[arg-type]
    place = 0
    while True:
        raw.seek(place)
        block = raw.read(BLOCK)
        if not block:
            raise DamagedTarError("The tar ends without its end-of-archive block, as one that is cut does")
        if not block.strip(b"\0"):
            following = _after_zeros(raw, place + len(block))
            if following is None:
                return
            place = following
            continue
        info = _header(tar, raw, place)
        if tar.offset <= place:
            raise DamagedTarError(f"The header at byte {place} has an impossible size")
        place = tar.offset
        if info.isdir():
            continue
        name = filesystem.as_text(info.name.removeprefix("./"))
        if info.isreg() and not _is_whole(raw, info, size, name):
            raise DamagedTarError(f"The tar is cut: it ends within the {info.size:,} bytes of {name!r}", name)
        yield TarMember(name, info.offset_data, info.size, *_refusal(info, name))


def _is_whole(raw: TarStream, info: tarfile.TarInfo, size: int | None, name: str) -> bool:
    end = info.offset_data + info.size
    if isinstance(raw, RawStream):
        return size is None or end <= size
    try:
        return raw.reaches(end)
    except UnpackError as error:
        raise DamagedTarError(f"{error.reason}, within {name!r}", name, error.error) from error


class _Headers(tarfile.TarFile):
    """A TarFile for `TarInfo.fromtarfile`, which keeps no members; its own search for them is not used."""

    def next(self) -> tarfile.TarInfo | None:
        return None


class _Bounded:
    """What tarfile reads headers from: a size that a damaged header promises is not allocated."""

    def __init__(self, raw: TarStream) -> None:
        self._raw = raw
        self.seek = raw.seek
        self.tell = raw.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._raw.read(size)


def _after_zeros(raw: TarStream, place: int) -> int | None:
    """The first header after end-of-archive blocks; None at the file's end."""
    while zeros := raw.read(_ZEROS_AT_ONCE):
        if rest := zeros.lstrip(b"\0"):
            return (place + len(zeros) - len(rest)) // BLOCK * BLOCK
        place += len(zeros)
    return None


def _header(tar: _Headers, raw: TarStream, place: int) -> tarfile.TarInfo:
    raw.seek(place)
    try:
        return tarfile.TarInfo.fromtarfile(tar)
    except (tarfile.TarError, ValueError, RecursionError) as error:
        if place:
            raise DamagedTarError(f"The header at byte {place} is damaged or cut: {error}") from error
        raw.seek(0)
        raise DamagedTarError(f"The file is not a tar; it begins with {raw.read(16)!r}") from error


def _refusal(info: tarfile.TarInfo, name: str) -> tuple[str, str]:
    """Error and reason where a member must not be read, else two empty ones."""
    if _ABSOLUTE.match(name) or ".." in re.split(r"[\\/]", name):
        return "PathLeavesTar", f"The member {name!r} has a path that leaves the tar's root"
    if info.issym() or info.islnk():
        return "LinkInTar", f"The member {name!r} is a link to {info.linkname!r}; links are not followed"
    if not info.isreg() or info.issparse():
        return "SpecialInTar", f"The member {name!r} is not an ordinary file (tar type {info.type!r})"
    return "", ""


def find_member(raw: TarStream, name: str) -> TarMember | None:
    """The first readable member of a name, or None; see `members`."""
    return next((one for one in members(raw) if one.name == name and not one.error), None)
