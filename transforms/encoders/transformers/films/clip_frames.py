"""The frames of a segment as a model of films takes them: by the model's own image processor, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.media.film.sampling import Sampling
from transforms.encoders.transformers.pixels import numbers_by_library

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]

PACKAGES = ("torch", "transformers")


def frame_preparation(folder: Path) -> Callable[[Iterator[Image]], Floats]:
    """A function from the frames of a segment to float32[frames, channels, height, width].

    A processor of films treats each frame alone, and takes one frame as a film of one: only frames of the model's size
    are in memory.

    Raises:
        EncoderError: if the library does not have the folder's image processor, or it makes images of several sizes.
    """
    numbers = numbers_by_library(folder)

    def prepared(frames: Iterator[Image]) -> Floats:
        arrays = [numbers(frame) for frame in frames]
        return np.concatenate([one if one.ndim == 4 else one[None] for one in arrays])

    return prepared


def segments_at_once(batch: int, sampling: Sampling) -> int:
    """How many segments go through a model together.

    Args:
        batch: images that fit the device well.
    """
    return max(1, batch // sampling.frames)
