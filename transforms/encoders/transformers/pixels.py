"""Images as a model of the transformers library takes them: by its own image processor, on Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.errors import EncoderError
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.media.media_encoder import Prepared

if TYPE_CHECKING:
    from PIL.Image import Image

PACKAGES = ("torch", "transformers", "PIL")
RESAMPLING = "Pillow"
"""Part of the space: the library can resample with torchvision too, which gives other pixels."""


def preparation(folder: Path) -> Callable[[Image], Prepared]:
    """A function from an image in RGB to float32[channels, height, width].

    Raises:
        EncoderError: if the library does not have the folder's image processor, or it makes images of several sizes.
    """
    make_importable()
    from PIL import Image as library
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
        sizes = {_pixels(processor, library.new("RGB", size)).shape for size in ((96, 64), (48, 80))}
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise EncoderError(
            f"can't use the image processor in {folder}: {error}", "check its preprocessor_config.json"
        ) from error
    if len(sizes) > 1:
        raise EncoderError(
            f"the image processor in {folder} makes images of several sizes, such as "
            f"{' and '.join(str(list(size[1:])) for size in sorted(sizes))}",
            "give it a crop_size with do_center_crop, or a size with height and width",
        )
    return lambda image: Prepared(_pixels(processor, image))


def _pixels(processor: Any, image: Image) -> Any:
    found = processor(images=image, return_tensors="np")["pixel_values"][0]
    return np.ascontiguousarray(found, np.float32)
