"""Models of images and texts as their libraries train them: CLIP and SigLIP of transformers, and those of open_clip."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from transforms.encoders import open_clip
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.pixels import numbers_by_library

if TYPE_CHECKING:
    from PIL.Image import Image

WEIGHTS = (".safetensors", ".bin", ".msgpack", ".h5", ".index.json", ".pt", ".pth")
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
MOST_SCALE = math.log(100)
"""Of the logarithm of open_clip's logit scale, as its own training limits it."""


class ContrastiveModel(NamedTuple):
    """A model that is loaded for training.

    Attributes:
        module: of torch; its output for a batch has a `loss`.
        batch: texts, and an image in RGB for each, to the arguments of the module.
        save: writes the model into a folder that exists.
        loss: name of the loss.
    """

    module: Any
    batch: Callable[[Sequence[str], Sequence[Image]], dict[str, Any]]
    save: Callable[[Path], None]
    loss: str


def load(folder: Path) -> ContrastiveModel:
    """The model of a folder of open_clip or transformers.

    Raises:
        EncoderError: if its files are damaged.
        MissingExtraError: if the library is not installed.
    """
    return _of_open_clip(folder) if (folder / open_clip.SETTINGS).exists() else _of_transformers(folder)


def _of_transformers(folder: Path) -> ContrastiveModel:
    make_importable()
    import torch
    from transformers import AutoTokenizer

    model = ModelFolder.read(folder).load()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    prepare = numbers_by_library(folder)
    limit = int(model.config.text_config.max_position_embeddings)
    padding = "longest" if model.config.model_type == "clip" else "max_length"

    def batch(texts: Sequence[str], images: Sequence[Image]) -> dict[str, Any]:
        tokens = tokenizer(list(texts), padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        pixels = np.stack([prepare(image) for image in images])
        return {**tokens, "pixel_values": torch.from_numpy(pixels), "return_loss": True}

    def save(place: Path) -> None:
        _copy_settings(folder, place)
        model.save_pretrained(place, safe_serialization=True)

    return ContrastiveModel(model, batch, save, "the model's own, contrastive")


def _of_open_clip(folder: Path) -> ContrastiveModel:
    model, transform, tokenizer = open_clip.load_library_model(folder)
    import torch
    from open_clip.loss import ClipLoss, SigLipLoss
    from safetensors.torch import save_file

    bias = getattr(model, "logit_bias", None)
    loss = ClipLoss() if bias is None else SigLipLoss()

    class WithLoss(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Any, texts: Any) -> dict[str, Any]:
            with torch.no_grad():
                model.logit_scale.clamp_(0, MOST_SCALE)
            features = (model.encode_image(images, normalize=True), model.encode_text(texts, normalize=True))
            return {"loss": loss(*features, model.logit_scale.exp(), bias)}

    def batch(texts: Sequence[str], images: Sequence[Image]) -> dict[str, Any]:
        return {"images": torch.stack([transform(image) for image in images]), "texts": tokenizer(list(texts))}

    def save(place: Path) -> None:
        _copy_settings(folder, place)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, place / OPEN_CLIP_WEIGHTS)

    return ContrastiveModel(WithLoss(), batch, save, f"open_clip.{type(loss).__name__}")


def _copy_settings(folder: Path, place: Path) -> None:
    """Copies all files of a model but its weights."""
    for file in folder.iterdir():
        if file.is_file() and not file.name.endswith(WEIGHTS):
            shutil.copy(file, place / file.name)
