"""The usual transform before a model of images: resized, the middle cut out, and numbers scaled.

Only the piece that is cut out is resized, at the positions where the resized image would have it: that saves a third of
the time. Pixels are those of the library, up to the last bits of some, and stay bytes until they are on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from transforms.encoders.media.media_encoder import Prepared

if TYPE_CHECKING:
    from PIL.Image import Image

FILTERS = (1, 2, 3)
"""Pillow's numbers of Lanczos, bilinear and bicubic. Others do not give the same pixels for a piece."""


@dataclass(frozen=True)
class ImageTransform:
    """See the module. Called with an image in RGB, it gives uint8[height, width, 3].

    Attributes:
        size: width and height that every image gets, or the length of its shorter side.
        crop: width and height of the middle that is cut out; None for the whole.
        rounds_down: whether the piece's first row and column are rounded down, as transformers does; torchvision rounds
            halves to even.
        filter: one of `FILTERS`.
        mean, std: of numbers between 0 and 1, one per channel.
    """

    size: int | tuple[int, int]
    crop: tuple[int, int] | None
    rounds_down: bool
    filter: int
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def side(self) -> int:
        """The shorter side that a file needs at least, so that nothing is enlarged."""
        return self.size if isinstance(self.size, int) else max(self.size)

    def __call__(self, image: Image) -> Prepared:
        width, height = image.size
        wide, high = self.resized(width, height)
        across, down = self.crop or (wide, high)
        left, top = self._border(wide - across), self._border(high - down)
        box = (left * width / wide, top * height / high, (left + across) * width / wide, (top + down) * height / high)
        return Prepared(np.asarray(image.resize((across, down), self.filter, box)))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size of the whole image, were it resized.

        >>> ImageTransform(256, (224, 224), False, 3, (0.5,) * 3, (0.5,) * 3).resized(500, 375)
        (341, 256)
        """
        if not isinstance(self.size, int):
            return self.size
        if width <= height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size

    def _border(self, space: int) -> int:
        return space // 2 if self.rounds_down else round(space / 2)

    def numbers(self, pixels: Any) -> Any:
        """Pixels as the model takes them, computed where they are.

        Args:
            pixels: tensor uint8[n, height, width, 3].

        Returns:
            Tensor float32[n, 3, height, width].
        """
        import torch

        mean, std = (
            torch.tensor(list(values), dtype=torch.float32, device=pixels.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        found = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return found.div_(255).sub_(mean).div_(std)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a model and numbers, as one of the model and pixels; for `engines.torch.forward`."""
        return partial(_call, self, call)


def _call(transform: ImageTransform, call: Callable[..., Any], model: Any, pixels: Any) -> Any:
    kind = next(model.parameters()).dtype
    return call(model, transform.numbers(pixels).to(kind))


def of_torchvision(compose: Any) -> ImageTransform | None:
    """The same transform as torchvision's; None if it does more than `ImageTransform` does.

    Args:
        compose: `torchvision.transforms.Compose`, of torchvision, timm or open_clip.
    """
    from torchvision.transforms import CenterCrop, Normalize, Resize
    from torchvision.transforms.functional import pil_modes_mapping

    steps = list(getattr(compose, "transforms", []))
    by_name = {type(step).__name__: step for step in steps}
    resize, crop, normalize = (by_name.get(kind.__name__) for kind in (Resize, CenterCrop, Normalize))
    known = {"Resize", "CenterCrop", "MaybeConvertMode", "MaybeToTensor", "ToTensor", "Normalize"}
    if (
        len(by_name) != len(steps)
        or {*by_name} - known
        or resize is None
        or normalize is None
        or steps[0] is not resize
    ):
        return None
    size = resize.size if isinstance(resize.size, int) else tuple(reversed(resize.size))
    if isinstance(size, tuple) and len(size) == 1:
        [size] = size
    cut = None if crop is None else (int(crop.size[1]), int(crop.size[0]))
    filter = int(pil_modes_mapping.get(resize.interpolation, -1))
    made = ImageTransform(size, cut, False, filter, floats(normalize.mean), floats(normalize.std))
    return made if resize.max_size is None and is_sound(made) else None


def is_sound(made: ImageTransform) -> bool:
    """Whether all images get one size, a piece is never larger than the image, and numbers are of three channels."""
    inner = isinstance(made.size, int) and made.crop is None  # then images differ in size
    fits = made.crop is None or (
        max(made.crop) <= made.size
        if isinstance(made.size, int)
        else all(cut <= whole for cut, whole in zip(made.crop, made.size, strict=True))
    )
    return not inner and fits and made.filter in FILTERS and len(made.mean) == len(made.std) == 3


def floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
