"""Images as a model of the transformers library takes them: by its own image processor, on Pillow if it has that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.media.image_transform import ImageTransform, floats, is_sound
from transforms.encoders.media.preparation import PROBES, Preparation

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]

PACKAGES = ("torch", "transformers", "PIL")
RESAMPLING = "Pillow"
"""Part of the space: the library can resample with torchvision too, which gives other pixels."""
_BY_TORCHVISION = "torchvision"
_BY_TORCHVISION_ALONE = ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast")
"""Processors of the library that have no form for Pillow."""


_STEPS = (
    "_preprocess",
    "_preprocess_image_like_inputs",
    "process_image",
    "resize",
    "center_crop",
    "rescale",
    "normalize",
)
"""Methods of the library's processors that some of them replace."""
_WARPED = 384
"""Images of ConvNeXt that are as large are not cut."""


def resampling(processing: Mapping[str, Any]) -> str:
    """What resamples images, as a space says it.

    Args:
        processing: settings of an image processor.
    """
    alone = processing.get("image_processor_type") in _BY_TORCHVISION_ALONE
    return _BY_TORCHVISION if alone else RESAMPLING


def packages(resampled_by: str) -> tuple[str, ...]:
    """What images need that something resamples; see `resampling`."""
    return PACKAGES if resampled_by == RESAMPLING else (*PACKAGES, "torchvision")


def preparation(folder: Path, resampled_by: str = RESAMPLING) -> Preparation:
    """The preparation of images by a folder's image processor.

    Args:
        resampled_by: see `resampling`.

    Raises:
        EncoderError: if the library does not have it, or it makes images of several sizes.
    """
    processor = _processor(folder, resampled_by)
    transform = of_processor(processor)
    if transform is None:
        return Preparation.by_library(partial(_numbers, processor))
    return Preparation.by(transform)


def numbers_by_library(folder: Path) -> Callable[[Image], Floats]:
    """A function from an image in RGB to what a folder's image processor makes of it, float32.

    Raises:
        EncoderError: if the library does not have it, or it makes images of several sizes.
    """
    return partial(_numbers, _processor(folder, RESAMPLING))


def _processor(folder: Path, resampled_by: str) -> Any:
    make_importable()
    from PIL import Image as library
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            folder,
            backend="pil" if resampled_by == RESAMPLING else resampled_by,
            trust_remote_code=False,
            local_files_only=True,
        )
        sizes = {_numbers(processor, library.new("RGB", size)).shape for size in PROBES}
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
    return processor


def _numbers(processor: Any, image: Image) -> Floats:
    return np.ascontiguousarray(processor(images=image, return_tensors="np")["pixel_values"][0], np.float32)


def of_processor(processor: Any) -> ImageTransform | None:
    """The same transform as that of an image processor of transformers; None if it does more.

    Args:
        processor: of its backend for Pillow.
    """
    from transformers import ConvNextImageProcessorPil
    from transformers.image_processing_backends import PilBackend

    own = type(processor)
    shrinks = own is ConvNextImageProcessorPil
    if not shrinks and any(getattr(own, name) is not getattr(PilBackend, name) for name in _STEPS):
        return None
    if not (processor.do_resize and processor.do_rescale) or getattr(processor, "do_pad", None):
        return None
    if abs(processor.rescale_factor - 1 / 255) > 1e-12:
        return None
    size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
    filter = 2 if processor.resample is None else int(processor.resample)
    short, exact = size.shortest_edge, (size.width, size.height)
    if size.longest_edge or size.max_height or not (short or all(exact)):
        return None
    cut = None if crop is None else (crop.width, crop.height)
    if shrinks:
        if cut is not None:
            return None
        # As `ConvNextImageProcessorPil.resize` does: small sizes are cut out of a larger one.
        cut = (short, short) if short < _WARPED else None
        exact, short = ((short, short), None) if cut is None else (exact, int(short / processor.crop_pct))
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    made = ImageTransform(short or exact, cut, True, filter, floats(mean), floats(std))
    return made if is_sound(made) else None
