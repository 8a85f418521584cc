"""What happens to an image before a model: by `ImageTransform` where that is the same, else by the model's library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from transforms.encoders.media.image import scaled_side
from transforms.encoders.media.image_transform import of_torchvision
from transforms.encoders.media.media_encoder import MediaEncoder, Prepared

if TYPE_CHECKING:
    from PIL.Image import Image

    from transforms.encoders.engines.torch.forward import Forward

Floats = NDArray[np.float32]
PROBES = ((96, 64), (48, 80))
"""Sizes of two images, by which a preparation is tried."""


class PixelTransform(Protocol):
    """What makes pixels of an image, and of pixels, where the model is, what the model takes."""

    @property
    def side(self) -> int:
        """The shorter side that a file needs at least, so that nothing is enlarged."""
        ...

    def __call__(self, image: Image) -> Prepared:
        """The pixels of an image in RGB: arrays of one size, whatever the image's is."""
        ...

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a model and what it takes, as one of the model and pixels."""
        ...


class Preparation(NamedTuple):
    """See the module.

    Attributes:
        prepare: an image in RGB to an input of the model: pixels by a transform, numbers by a library.
        side: the shorter side that a file needs at least, so that nothing is enlarged.
        transform: that makes the pixels; None where a library makes numbers.
    """

    prepare: Callable[[Image], Prepared]
    side: int
    transform: PixelTransform | None = None

    @classmethod
    def by(cls, transform: PixelTransform) -> Preparation:
        """Pixels by a transform."""
        return cls(transform, transform.side, transform)

    @classmethod
    def by_library(cls, numbers: Callable[[Image], Floats]) -> Preparation:
        """Numbers, float32[channels, height, width], by a library's own function."""
        from PIL import Image as library

        side = max(numbers(library.new("RGB", PROBES[0])).shape[1:])
        return cls(lambda image: Prepared(np.ascontiguousarray(numbers(image), np.float32)), side)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a model and numbers, as one of the model and what `prepare` makes.

        Args:
            call: for `engines.torch.forward`.
        """
        return call if self.transform is None else self.transform.before(call)

    def encoder(
        self,
        config: EncoderConfig,
        facts: Mapping[str, Any],
        ready: Forward,
        run: Callable[[NDArray[Any]], Floats] | None = None,
    ) -> MediaEncoder:
        """The encoder of images by a model that takes what `prepare` makes.

        Args:
            facts: of its space; `dimensions` and `normalize` count.
            run: what makes vectors, if not `ready` alone.
        """
        side = scaled_side(config, self.side)
        dimensions, normalize = int(facts["dimensions"]), bool(facts["normalize"])
        return MediaEncoder(dimensions, normalize, self.prepare, run or ready.run, ready.batch, ready.described, side)


def by_torchvision(compose: Any) -> Preparation:
    """The preparation by a transform of torchvision, timm or open_clip.

    Args:
        compose: `torchvision.transforms.Compose`.
    """
    known = of_torchvision(compose)
    return Preparation.by_library(lambda image: compose(image).numpy()) if known is None else Preparation.by(known)
