"""The weights of the speaker encoder of the package Resemblyzer, as safetensors.

https://pypi.org/project/Resemblyzer/ (Apache-2.0)
"""

from __future__ import annotations

from pathlib import Path

from transforms.encoders.model_files import check_pinned, file_digest
from transforms.support.extras import need

_FILE = "pretrained.pt"
_TRAINING = "similarity_"


def unpack(package: Path, folder: Path, sha256: str) -> None:
    """Writes the tensors that embed; those that were for training only are left out.

    Args:
        package: the folder of the package.
        folder: where to write.
        sha256: of the package's file.

    Raises:
        EncoderError: if the package's file is not the pinned one.
        MissingExtraError: if torch is not installed.
    """
    need("audio", "resemblyzer", "torch")
    import torch
    from safetensors.torch import save_file

    weights = package / _FILE
    check_pinned(weights, file_digest(weights), sha256)
    tensors = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if not name.startswith(_TRAINING)}
    save_file(kept, folder / "model.safetensors")
