"""Opening films with PyAV: which demuxer it gets, and nothing but the film itself."""

from __future__ import annotations

from typing import Any, BinaryIO

_STILLS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""Brands of MPEG-4 files that are images."""
_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def container_of(head: bytes) -> str | None:
    """The demuxer of a film by its first bytes, None for what is not a film."""
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _STILLS else "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    return "mov" if head[4:8] in _QUICKTIME else None


def nothing_else(url: str, flags: int, options: Any) -> BinaryIO:  # noqa: ARG001 (the library's)
    """What PyAV gets for a file or an address that a film names."""
    raise PermissionError(f"the film refers to {url}, and nothing but the film is opened")


def more_frames_than_bytes(container: Any) -> str:
    """Why the index of an open container can't be right; "" if it may be.

    An index of some bytes may promise millions of frames, in which a search takes hours.
    """
    size = int(container.size)
    most = max((len(one.index_entries) for one in container.streams), default=0)
    if 0 < size < most:
        return f"its index has {most:,} frames, and the file has {size:,} bytes"
    return ""
