"""A small picture of an image or page, of a film's frame, or of a recording's waveform."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from schemas.modality import Modality
from transforms.encoders.media import sound
from transforms.encoders.media.content import RefusedError, opened
from transforms.encoders.media.film.film import opened_film
from transforms.encoders.media.image import opened_image

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 160
"""Pixels of the longer side."""
MOST_BYTES = 16 << 10
"""Of a picture; one that is larger is stored in a lower quality, and at last not at all."""
QUALITIES = (70, 40, 15)
WAVE_HEIGHT = 48
_RATE = 8000
_INK, _PAPER = (40, 90, 150), (255, 255, 255)


def thumbnail(modality: Modality, address: str, start: float, end: float) -> bytes | None:
    """The picture as a WebP file; None if the media can't be decoded, or it does not get small enough.

    Args:
        modality: of the media.
        address: see `schemas.locator`.
        start, end: seconds of a recording or film.

    Raises:
        CorpusError: if the storage fails.
    """
    try:
        image = _image(modality, address, start, end)
    except RefusedError:  # what is embedded could be decoded: it changed meanwhile
        return None
    image.thumbnail((SIDE, SIDE))
    for quality in QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=quality, method=4)
        if len(data := stream.getvalue()) <= MOST_BYTES:
            return data
    return None


def _image(modality: Modality, address: str, start: float, end: float) -> Image:
    if modality is Modality.IMAGE:
        return opened_image(address, None, SIDE)
    with opened(address, None) as stream:
        if modality is Modality.VIDEO:
            with opened_film(stream) as film:
                middle = next(film.frames([(start + end) / 2]))
                return middle.copy()
        return waveform(sound.decode(stream, _RATE, start, end).samples)


def waveform(samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Image:
    """The loudest samples of each column of pixels, as a bar around the middle; a whole column is full scale."""
    from PIL import Image as library

    borders = np.linspace(0, len(samples), SIDE + 1).astype(int)
    loud = [float(np.abs(samples[one:other]).max(initial=0.0)) for one, other in pairwise(borders)]
    half = np.clip(np.round(np.array(loud) * WAVE_HEIGHT / 2), 0.5, WAVE_HEIGHT / 2)
    rows = np.abs(np.arange(WAVE_HEIGHT)[:, None] - (WAVE_HEIGHT - 1) / 2)
    pixels = np.where((rows <= half[None, :])[..., None], np.array(_INK, np.uint8), np.array(_PAPER, np.uint8))
    return library.fromarray(pixels.astype(np.uint8))
