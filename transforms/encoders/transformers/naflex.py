"""Images of SigLIP 2 NaFlex: each keeps its proportions, as up to so many square patches.

Tschannen et al., SigLIP 2: https://arxiv.org/abs/2502.14786

An image is resized so that it has as many patches as fit. All images have one array of the same size, so that a vector
does not depend on its batch: a row for each patch, uint8, and after its pixels one number, `EMPTY` in the rows after
the last patch, `BEGINS` where a row of patches begins, and else `WITHIN`. So the array tells the image's shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schemas.errors import EncoderError
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.media.image_transform import floats
from transforms.encoders.media.media_encoder import Prepared
from transforms.encoders.media.preparation import Preparation

if TYPE_CHECKING:
    from PIL.Image import Image

EMPTY, WITHIN, BEGINS = 0, 1, 2
_CHANNELS = 3


class Patches(NamedTuple):
    """How an image becomes patches.

    Attributes:
        patch: width and height of one.
        most: of an image.
        filter: Pillow's number.
        mean, std: of numbers between 0 and 1, one per channel.
        sized: the library's function of height, width, `patch` and `most` that gives the height and width to resize to.
    """

    patch: int
    most: int
    filter: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sized: Callable[[int, int, int, int], tuple[int, int]]

    def __call__(self, image: Image) -> Prepared:
        """uint8[most, patch * patch * 3 + 1]; see the module."""
        height, width = self.sized(image.height, image.width, self.patch, self.most)
        pixels = np.asarray(image.resize((width, height), self.filter))
        down, across = height // self.patch, width // self.patch
        blocks = pixels.reshape(down, self.patch, across, self.patch, _CHANNELS).transpose(0, 2, 1, 3, 4)
        made = np.zeros((self.most, self.patch**2 * _CHANNELS + 1), np.uint8)
        made[: down * across, :-1] = blocks.reshape(down * across, -1)
        made[: down * across, -1] = WITHIN
        made[: down * across : across, -1] = BEGINS
        return Prepared(made)

    @property
    def side(self) -> int:
        """The shorter side that a file needs at least, so that nothing is enlarged: that of a square."""
        return math.ceil(math.sqrt(self.most)) * self.patch

    def inputs(self, packed: Any, kind: Any) -> dict[str, Any]:
        """What the model takes, computed where the arrays are.

        Args:
            packed: tensor [n, most, patch * patch * 3 + 1], of arrays as this makes them.
            kind: of the model's numbers.
        """
        import torch

        numbers = packed.to(torch.float32)
        mask = numbers[..., -1] != EMPTY
        down = (numbers[..., -1] == BEGINS).sum(dim=1)
        mean, std = (
            torch.tensor(list(values), dtype=torch.float32, device=packed.device).repeat(self.patch**2)
            for values in (self.mean, self.std)
        )
        pixels = numbers[..., :-1].div(255).sub_(mean).div_(std) * mask[..., None]
        return {
            "pixel_values": pixels.to(kind),
            "pixel_attention_mask": mask.to(torch.int32),
            "spatial_shapes": torch.stack([down, mask.sum(dim=1) // down], dim=1),
        }

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a model and its inputs by name, as one of the model and arrays as this makes them."""
        return partial(_call, self, call)


def _call(patches: Patches, call: Callable[..., Any], model: Any, packed: Any) -> Any:
    return call(model, patches.inputs(packed, next(model.parameters()).dtype))


def patch_preparation(folder: Path) -> Preparation:
    """The preparation by a folder's image processor.

    Raises:
        EncoderError: if it can't be read, or does more or less than resize an image to patches.
    """
    make_importable()
    from transformers import Siglip2ImageProcessorPil
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches as sized

    try:
        processor = Siglip2ImageProcessorPil.from_pretrained(folder, local_files_only=True)
        is_usual = processor.do_resize and processor.do_rescale and abs(processor.rescale_factor - 1 / 255) < 1e-12
        named = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
        mean, std = map(floats, named)
        patch, most, filter = map(int, (processor.patch_size, processor.max_num_patches, processor.resample))
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise EncoderError(
            f"can't use the image processor in {folder}: {error}", "check its preprocessor_config.json"
        ) from error
    if not is_usual or min(patch, most) < 1 or not len(mean) == len(std) == _CHANNELS:
        raise EncoderError(
            f"the image processor in {folder} does not resize images of three channels to patches",
            "set do_resize and do_rescale, patch_size and max_num_patches in its preprocessor_config.json",
        )
    return Preparation.by(Patches(patch, most, filter, mean, std, sized))
