"""The GPUs that a model runs on."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import EncoderError
from transforms.encoders.engines.extra import has_torch, need_torch

_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg")


def gpus(device: str) -> list[str]:
    """CUDA devices to run on, by their names in torch; none for the processor.

    Does not load torch where the machine has no NVIDIA driver at all.

    Args:
        device: `encoder.device`.

    Raises:
        EncoderError: if the device is `cuda`, and this machine has none.
    """
    if device == "cpu" or (device == "auto" and not any(Path(name).exists() for name in _GPU_FILES)):
        return []
    if device == "cuda":
        need_torch("encoder.device: cuda")
    if not has_torch():
        return []
    import torch

    found = [f"cuda:{number}" for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    if device == "cuda" and not found:
        raise EncoderError("encoder.device is cuda, but this worker has no CUDA device", "set it to auto or cpu")
    return found
