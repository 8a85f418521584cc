"""The sound of a recording, or of a film: its first sound track, at its place in the film, and silence elsewhere."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.media import sound
from transforms.encoders.media.content import RefusedError
from transforms.encoders.media.film.film import Film, decoding, opened_film
from transforms.encoders.media.sound import Heard
from transforms.support.film_container import container_of

Floats = NDArray[np.float32]

_BEFORE = 0.2
"""Seconds that are decoded before the wanted ones: a decoder needs some packets to start."""
_GAP = 0.1
"""Seconds: times of packets are rounded, and differ by more only where the track has a gap."""


def decode(stream: BinaryIO, rate: int, start: float, end: float, *, measured: bool) -> Heard:
    """Decodes some seconds of a recording or of a film's sound track.

    Args:
        rate: of the samples that come out.
        start, end: seconds.
        measured: whether `total` of a film is measured; else it is `end`.

    Raises:
        RefusedError: what `sound.decode` and `Film` raise, and `NoSound`.
        EncoderError: if a library is not installed.
    """
    stream.seek(0)
    if container_of(stream.read(64)) is None:
        return sound.decode(stream, rate, start, end)
    try:
        with opened_film(stream) as film:
            return _of_film(film, rate, start, end, measured=measured)
    except RefusedError as error:
        if error.error != "NoPicture":
            raise
    return sound.decode(stream, rate, start, end)


def _of_film(film: Film, rate: int, start: float, end: float, *, measured: bool) -> Heard:
    import soxr

    if not film.has_sound:
        raise no_sound()
    total = film.seconds() if measured else end
    end = min(end, total)
    with decoding():
        found, own_rate = _track(film, start, end)
    if not np.isfinite(found).all():
        raise RefusedError("DamagedFilm", "The film's sound has samples that are NaN or infinite")
    samples = found if own_rate == rate else soxr.resample(found, own_rate, rate)
    return Heard(np.ascontiguousarray(samples, np.float32), end - start, total)


def no_sound() -> RefusedError:
    """For a film whose sound can't be embedded, because there is none."""
    return RefusedError("NoSound", "The film has no sound track that can be decoded")


def _track(film: Film, start: float, end: float) -> tuple[Floats, int]:
    """Some seconds of the first sound track as float32[n], the mean of its channels, and its rate."""
    import av

    track = next(one for one in film.container.streams.audio if one.codec_context is not None)
    rate = int(track.codec_context.sample_rate)
    samples = np.zeros(round((end - start) * rate), np.float32)
    resampler = av.AudioResampler(format="fltp")
    _seek(film, track, max(0.0, start - _BEFORE))
    first, place = round(start * rate), None
    for frame in film.container.decode(track):
        at = round((float((frame.pts or 0) * frame.time_base) - film.origin) * rate)
        if place is None or abs(at - place) > _GAP * rate:
            place = at
        for plain in resampler.resample(frame):
            heard = plain.to_ndarray().mean(axis=0, dtype=np.float32)
            _put(samples, heard, place - first)
            place += len(heard)
        if place - first >= len(samples):
            break
    return samples, rate


def _seek(film: Film, track: Any, time: float) -> None:
    import av

    for wanted in (time, 0.0):
        try:
            film.container.seek(int((film.origin + wanted) / track.time_base), stream=track, backward=True)
        except av.FFmpegError:
            continue
        return


def _put(samples: Floats, heard: Floats, place: int) -> None:
    """Copies what is heard from a place on, as far as it is within the samples.

    >>> samples = np.zeros(4, np.float32)
    >>> _put(samples, np.array([1, 2, 3], np.float32), -1)
    >>> samples.tolist()
    [2.0, 3.0, 0.0, 0.0]
    """
    begin, end = max(place, 0), min(place + len(heard), len(samples))
    if begin < end:
        samples[begin:end] = heard[begin - place : end - place]
