"""A torch module as a function from arrays to arrays, on the device and in the precision of a configuration."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from schemas.errors import EncoderError
from transforms.encoders.engines import processor
from transforms.encoders.engines.torch.computed_precision import computed_precision

Floats = NDArray[np.float32]


class Forward(NamedTuple):
    """A module, loaded.

    Attributes:
        run: inputs to outputs; several threads may call it.
        batch: inputs that fit the device well.
        described: see `Encoder.runtime`.
    """

    run: Callable[..., Floats]
    batch: int
    described: dict[str, str]


def forward(module: Any, config: EncoderConfig, call: Callable[..., Any], **versions: str) -> Forward:
    """Moves a module to its device.

    Args:
        module: torch.nn.Module in float32.
        call: takes the module and tensors; returns a tensor of [n, dimensions].
        versions: of libraries, for the records.

    Raises:
        EncoderError: if a GPU is configured and there is none.
    """
    import torch

    on_cuda = torch.cuda.is_available() if config.device == "auto" else config.device == "cuda"
    if on_cuda and not torch.cuda.is_available():
        raise EncoderError("encoder.device: cuda, and torch sees no GPU", "set device: auto, or run on a GPU worker")
    kind = getattr(torch, computed_precision(config.precision, on_cuda))
    device = "cuda" if on_cuda else "cpu"
    module = module.eval().to(device, kind)
    lock = threading.Lock()

    def run(*arrays: NDArray[Any]) -> Floats:
        # One batch at a time, on all cores: two at once would take twice the memory for the same rate.
        with lock, torch.inference_mode():
            tensors = [torch.from_numpy(array).to(device) for array in arrays]
            inputs = [tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in tensors]
            found: Floats = call(module, *inputs).float().cpu().numpy()
        return found

    described = {
        "engine": "torch",
        "device": device,
        "precision": str(kind).removeprefix("torch."),
        "processor": torch.cuda.get_device_name() if on_cuda else processor.name(),
        "torch": torch.__version__,
        **versions,
    }
    return Forward(run, 128 if on_cuda else 16, described)
