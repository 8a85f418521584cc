"""A model's torch modules, loaded by the sentence-transformers library, and linear layers that are faster on CPUs."""

from __future__ import annotations

import time
from typing import Any

from schemas.errors import EncoderError
from transforms.encoders.engines.torch.torchvision_operators import make_importable

PROBE_ROWS = 512


def load_modules(folder: str, device: str, route: str = "") -> Any:
    """The library's own modules (Transformer, Pooling, Dense, Normalize), in evaluation mode, in float32.

    Args:
        route: of its `Router`: the modules of this route alone, and those that follow the router.

    Raises:
        EncoderError: if the files are damaged.
    """
    make_importable()
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            folder,
            device="cpu" if route else device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        if route:
            router, *following = model.children()
            model = SentenceTransformer(modules=[*router.sub_modules[route], *following], device=device)
        return model.eval()
    except Exception as error:  # the libraries raise errors of many kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error


def prepack(modules: Any) -> bool:
    """Replaces float32 linear layers by ones whose weights lie in oneDNN's own order, if that is faster here.

    torch multiplies float32 matrices with MKL, which is slow on some processors. Vectors stay the same up to rounding.

    Returns:
        Whether layers were replaced.
    """
    import torch

    linear = max(
        (layer for layer in modules.modules() if isinstance(layer, torch.nn.Linear)),
        key=lambda layer: layer.weight.numel(),
        default=None,
    )
    if linear is None or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    probe = torch.zeros(PROBE_ROWS, linear.in_features)
    with torch.inference_mode():
        if _seconds(_prepacked(linear), probe) > 0.8 * _seconds(linear, probe):
            return False
        for parent in list(modules.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is torch.nn.Linear:
                    setattr(parent, name, _prepacked(layer))
    return True


def _prepacked(linear: Any) -> Any:
    import torch

    class Prepacked(torch.nn.Module):  # type: ignore[misc]  # here, so that this file imports without torch
        def __init__(self) -> None:
            super().__init__()
            self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), PROBE_ROWS)
            self.bias = linear.bias

        def forward(self, states: Any) -> Any:
            return torch.ops.mkldnn._linear_pointwise(states, self.packed, self.bias, "none", [], "")

    return Prepacked()


def _seconds(layer: Any, probe: Any) -> float:
    layer(probe)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        layer(probe)
        times.append(time.perf_counter() - start)
    return min(times)
