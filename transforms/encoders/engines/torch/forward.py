"""A torch module as a function from arrays to arrays, on the devices and in the precision of a configuration."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from transforms.encoders.engines import processor
from transforms.encoders.engines.devices import gpus
from transforms.encoders.engines.torch.computed_precision import computed_precision

log = logging.getLogger("vecbeam")
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
    """Moves a module to its devices: each GPU has a copy, and computes one batch at a time.

    Args:
        module: torch.nn.Module in float32.
        call: takes the module and tensors; returns a tensor of [n, dimensions].
        versions: of libraries, for the records.

    Raises:
        EncoderError: if a GPU is configured and there is none.
    """
    import torch

    found = gpus(config.device)
    devices = found or ["cpu"]
    kind = getattr(torch, computed_precision(config.precision, bool(found)))
    # On the processor too, one batch at a time, on all cores: two would take twice the memory for the same rate.
    idle: SimpleQueue[tuple[Any, str]] = SimpleQueue()
    for number, device in enumerate(devices):
        of_device = module if number == len(devices) - 1 else copy.deepcopy(module)
        idle.put((of_device.eval().to(device, kind), device))

    def compute(replica: Any, device: str, arrays: tuple[NDArray[Any], ...]) -> Floats:
        tensors = [torch.from_numpy(array).to(device) for array in arrays]
        inputs = [tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in tensors]
        result: Floats = call(replica, *inputs).float().cpu().numpy()
        return result

    def fitting(replica: Any, device: str, arrays: tuple[NDArray[Any], ...]) -> Floats:
        """In halves where a batch does not fit the device."""
        try:
            return compute(replica, device, arrays)
        except torch.OutOfMemoryError:
            rows = len(arrays[0])
            if rows == 1:
                raise
            log.warning("a batch of %d inputs did not fit the device; it is computed in halves", rows)
        torch.cuda.empty_cache()
        halves = zip(*(np.array_split(array, 2) for array in arrays), strict=True)
        return np.concatenate([fitting(replica, device, half) for half in halves])

    def run(*arrays: NDArray[Any]) -> Floats:
        replica, device = idle.get()
        try:
            with torch.inference_mode():
                return fitting(replica, device, arrays)
        finally:
            idle.put((replica, device))

    described = {
        "engine": "torch",
        "device": "cuda" if found else "cpu",
        "precision": str(kind).removeprefix("torch."),
        "processor": torch.cuda.get_device_name() if found else processor.name(),
        "torch": torch.__version__,
        **versions,
    }
    return Forward(run, 128 if found else 16, described)
