"""Recordings in m4a and aac, by PyAV: what libsndfile does not read.

The demuxer is chosen here, not by FFmpeg: some of its others open files and addresses that a file names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from transforms.encoders.media.content import RefusedError
from transforms.support.film_container import more_frames_than_bytes, nothing_else
from transforms.support.item_error import said_by_library

Floats = NDArray[np.float32]
_BEFORE = 0.2
"""Seconds that are decoded before the wanted ones: a decoder needs some packets to start."""


def is_for_av(head: bytes) -> bool:
    """Whether a file is MPEG-4 or AAC by its first bytes."""
    return _format(head) is not None


def _format(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return "mp4"
    # The sync word of ADTS; an mp3 frame has another layer.
    return "aac" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


def seconds_of(stream: BinaryIO, head: bytes) -> float:
    """How long a recording is: by the header of MPEG-4, and by counting the packets of AAC.

    Raises:
        RefusedError: `DamagedSound`, or `EmptySound` where there is no sound in it.
        EncoderError: if PyAV is not installed.
    """
    with _opened(stream, head) as (container, sound):
        if _format(head) == "mp4":
            return float((sound.duration or 0) * sound.time_base)
        packets = sum(1 for packet in container.demux(sound) if packet.size)
        return packets * float(sound.codec_context.frame_size or 1024) / float(sound.rate)


def decode(stream: BinaryIO, head: bytes, start: float, end: float) -> tuple[Floats, int]:
    """Some seconds of a recording.

    Returns:
        float32[n], the mean of all channels, and its rate.

    Raises:
        RefusedError: `DamagedSound`, or `EmptySound`.
        EncoderError: if PyAV is not installed.
    """
    import av

    with _opened(stream, head) as (container, sound):
        rate = int(sound.rate)
        resampler = av.AudioResampler(format="fltp")
        seekable = _format(head) == "mp4" and start > _BEFORE
        if seekable:
            container.seek(int((start - _BEFORE) / sound.time_base), stream=sound, backward=True)
        pieces: list[Floats] = []
        place, first, last = (None if seekable else 0), round(start * rate), round(end * rate)
        for frame in container.decode(sound):
            if place is None:
                place = round(float((frame.pts or 0) * frame.time_base) * rate)
            for plain in resampler.resample(frame):
                samples = plain.to_ndarray().mean(axis=0, dtype=np.float32)
                pieces.append(samples[max(0, first - place) : max(0, last - place)])
                place += len(samples)
            if place >= last:
                break
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.float32)), rate


@contextmanager
def _opened(stream: BinaryIO, head: bytes) -> Iterator[tuple[Any, Any]]:
    try:
        import av
    except ImportError as error:
        raise EncoderError(f"PyAV is needed to decode m4a and aac: {error}", "pip install 'vecbeam[audio]'") from error
    stream.seek(0)
    try:
        with av.open(stream, format=_format(head), io_open=nothing_else) as container:
            if why := more_frames_than_bytes(container):
                raise RefusedError("DamagedSound", f"The recording is damaged: {why}")
            if not container.streams.audio:
                raise RefusedError("EmptySound", "The file has no sound")
            yield container, container.streams.audio[0]
    except RefusedError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # PyAV raises errors of many kinds for damaged files
        raise RefusedError("DamagedSound", f"The recording can't be decoded: {said_by_library(error)}") from error
