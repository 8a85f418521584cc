"""Recordings as every encoder of vecbeam hears them: float32, one channel, at the model's rate.

libsndfile reads wav, flac, mp3, ogg and opus, and PyAV m4a and aac; which one it is follows from the content. Mono
is the mean of all channels. soxr resamples, at its high quality. Only the requested seconds are
decoded, and nothing but the file itself is opened.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from transforms.encoders.media import packets
from transforms.encoders.media.content import RefusedError
from transforms.support.item_error import said_by_library

Floats = NDArray[np.float32]

MAX_SECONDS = 48 * 3600
"""A longer recording is refused: its header is damaged, or it is many recordings."""
MISSING_SECONDS = 0.1
"""A compressed file may be so much shorter than its header says: encoders round, and players skip."""
_UNKNOWN = 0x7FFFF000
"""A program that writes a wav to a pipe promises this length, or more, or 0."""
_LAST_BYTES = 65_307
"""The largest page of an Ogg stream."""


class Heard(NamedTuple):
    """A recording, or some seconds of it.

    Attributes:
        samples: float32[n].
        seconds: how long it is, by the file's own rate.
        total: seconds of the whole recording.
    """

    samples: Floats
    seconds: float
    total: float


def seconds_of(stream: BinaryIO) -> float:
    """How long a recording is, by its header where it has one.

    Raises:
        RefusedError: `EmptyFile`, `NotSound`, `DamagedSound`, `EmptySound` or `SoundTooLong`.
        EncoderError: if soundfile or PyAV is not installed.
    """
    head = _head(stream)
    if packets.is_for_av(head):
        return _checked_seconds(packets.seconds_of(stream, head))
    with _opened(stream, head) as file:
        return _checked_seconds(file.frames / file.samplerate)


def decode(stream: BinaryIO, rate: int, start: float = 0.0, end: float | None = None) -> Heard:
    """Decodes a recording, or some seconds of it.

    Args:
        rate: of the samples that come out.
        start, end: seconds; to the recording's end for None.

    Raises:
        RefusedError: what `seconds_of` raises, and `DamagedSound` where there is less than the header promises, or
            a number that is none.
        EncoderError: if soundfile, PyAV or soxr is not installed.
    """
    import soxr

    head = _head(stream)
    if packets.is_for_av(head):
        total = _checked_seconds(packets.seconds_of(stream, head))
        found, own_rate = packets.decode(stream, head, start, total if end is None else end)
        missing = (total if end is None else min(end, total)) - start - len(found) / own_rate
        if missing > MISSING_SECONDS:
            raise _cut(f"its header promises {missing:.1f} s more than it holds")
    else:
        with _opened(stream, head) as file:
            own_rate, frames = int(file.samplerate), int(file.frames)
            total = _checked_seconds(frames / own_rate)
            first = min(round(start * own_rate), frames)
            wanted = (frames if end is None else min(round(end * own_rate), frames)) - first
            found = _read(file, first, wanted)
        # An mp3 whose header counts the silence that its encoder adds has that much less.
        allowed = MISSING_SECONDS * own_rate if file.format in ("MP3", "MPEG") else 0
        if len(found) < wanted - allowed:
            raise _cut(f"its header promises {(wanted - len(found)) / own_rate:.2f} s more than can be decoded")
    if not np.isfinite(found).all():
        raise RefusedError("DamagedSound", "The recording has samples that are NaN or infinite")
    samples = found if own_rate == rate else soxr.resample(found, own_rate, rate)
    return Heard(np.ascontiguousarray(samples, np.float32), len(found) / own_rate, total)


def _head(stream: BinaryIO) -> bytes:
    stream.seek(0)
    head = stream.read(64)
    stream.seek(0)
    if not head:
        raise RefusedError("EmptyFile", "The file has no bytes")
    return head


def _opened(stream: BinaryIO, head: bytes):  # type: ignore[no-untyped-def]  # of a library without types
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: libsndfile is missing
        raise EncoderError(f"soundfile is needed to decode sound: {error}", "pip install 'vecbeam[audio]'") from error
    _check_whole(stream, head)
    stream.seek(0)
    try:
        return soundfile.SoundFile(stream)
    except soundfile.SoundFileError as error:
        if _is_known(head):
            raise RefusedError("DamagedSound", f"The recording can't be decoded: {said_by_library(error)}") from error
        raise RefusedError(
            "NotSound", f"The file is not a recording that libsndfile or PyAV knows; it begins with {head[:16]!r}"
        ) from error


def _read(file, first: int, wanted: int) -> Floats:  # type: ignore[no-untyped-def]
    import soundfile

    try:
        if first:
            file.seek(first)
        frames = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise RefusedError("DamagedSound", f"The recording can't be decoded: {said_by_library(error)}") from error
    found: Floats = frames.mean(axis=1, dtype=np.float32)
    return found


def _checked_seconds(seconds: float) -> float:
    if seconds <= 0:
        raise RefusedError("EmptySound", "The recording has no samples")
    if seconds > MAX_SECONDS:
        raise RefusedError(
            "SoundTooLong", f"The recording has {seconds:,.0f} s by its header, more than {MAX_SECONDS:,}; split it"
        )
    return seconds


def _is_known(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"caff") or head[:3] == b"ID3"


def _cut(why: str) -> RefusedError:
    return RefusedError("DamagedSound", f"The recording is cut: {why}")


def _check_whole(stream: BinaryIO, head: bytes) -> None:
    """Refuses files that end early, where the decoder would read them without an error."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        _check_wav(stream)
    elif head[:4] == b"OggS":
        _check_ogg(stream)


def _check_wav(stream: BinaryIO) -> None:
    size = stream.seek(0, 2)
    place = 12
    while place + 8 <= size:
        stream.seek(place)
        name, length = struct.unpack("<4sI", stream.read(8))
        place += 8
        if name == b"data":
            if 0 < length < _UNKNOWN and place + length > size:
                raise _cut(f"its header promises {length:,} bytes of samples, the file has {size - place:,}")
            return
        place += length + length % 2
    raise _cut("it ends before its samples")


def _check_ogg(stream: BinaryIO) -> None:
    size = stream.seek(0, 2)
    stream.seek(max(0, size - _LAST_BYTES))
    last = stream.read(_LAST_BYTES)
    place = last.rfind(b"OggS")
    page = last[place:]
    segments = page[26] if place >= 0 and len(page) > 26 else 0
    whole = len(page) >= 27 + segments + sum(page[27 : 27 + segments])
    if place < 0 or len(page) <= 26 or not whole or not page[5] & 4:
        raise _cut("its last page is not whole, or not marked as the last")
