"""Where the scenes of a film begin: where the colours of frames change at once.

A fifth of a second apart, frames are scaled to 64 x 36 and their colours counted in 512 bins. A scene begins where more
than 0.4 of the pixels are in other bins than before, and a second after the scene before at the earliest. So a cut is
found to a fifth of a second, and a slow fade is not one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.media.film.film import Film

STEP = 0.2
"""Seconds from one frame that is looked at to the next."""
CHANGED = 0.4
"""Share of the pixels that are in other bins, from which on a scene begins."""
SHORTEST = 1.0
"""Seconds of a scene."""
_WIDTH, _HEIGHT = 64, 36
_BINS = 8


def borders(film: Film) -> list[float]:
    """The times at which scenes begin, and the end of the film. The whole film is decoded.

    Raises:
        RefusedError: `EmptyFilm` or `DamagedFilm`.
    """
    end = film.seconds()
    found = [0.0]
    before: NDArray[np.int64] | None = None
    for time, frame in film.every(STEP):
        counts = _colours(frame)
        is_other = before is not None and np.abs(counts - before).sum() / 2 > CHANGED * _WIDTH * _HEIGHT
        before = counts
        if is_other and time - found[-1] >= SHORTEST and end - time >= SHORTEST:
            found.append(round(time, 3))
    return [*found, end]


def _colours(frame: Any) -> NDArray[np.int64]:
    """int64[512]: how many pixels have each colour, of eight levels of red, green and blue."""
    pixels = frame.reformat(_WIDTH, _HEIGHT, "rgb24").to_ndarray().astype(np.int64) * _BINS // 256
    return np.bincount((pixels @ np.array([_BINS**2, _BINS, 1])).ravel(), minlength=_BINS**3)
