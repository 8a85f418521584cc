"""A small open_clip model with seeded random weights, and what the library itself makes of images and texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TOWERS = {"layers": 2, "width": 64}
SETTINGS: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {**TOWERS, "image_size": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {**TOWERS, "context_length": 16, "vocab_size": 49408, "heads": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"},
}


def save_open_clip(folder: Path, seed: int = 0, **more: Any) -> Path:
    """A small model with seeded random weights, as the library saves it for the hub.

    Args:
        more: settings of the model.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = SETTINGS | {"model_cfg": SETTINGS["model_cfg"] | more}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    torch.manual_seed(seed)
    model = open_clip.CLIP(**settings["model_cfg"])
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


def library(folder: Path, images: list[Image.Image], texts: list[str]) -> list[np.ndarray[Any, Any]]:
    """The library's own vectors of images and of texts."""
    import open_clip
    import torch

    loaded, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    loaded.eval()
    with torch.inference_mode():
        return [
            loaded.encode_image(torch.stack([transform(image) for image in images]), normalize=True).numpy(),
            loaded.encode_text(tokenizer(texts), normalize=True).numpy(),
        ]
