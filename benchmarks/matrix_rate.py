"""What a device's matrix units do a second: the most that a model could reach there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIDE = {"cpu": 2048, "cuda": 8192}
LEAST_SIDE = 512
ROUNDS = 8


def measure(device: str, precision: str) -> float:
    """Floating point operations a second of torch's product of two large square matrices, the best of some rounds.

    They are as large as `SIDE`, or as fits a GPU next to the model.

    Args:
        device: cpu or cuda.
        precision: float32, bfloat16 or float16.
    """
    import torch

    side = SIDE[device]
    while True:
        try:
            return _measure(side, device, getattr(torch, precision))
        except torch.OutOfMemoryError:
            if side <= LEAST_SIDE:
                raise
            side //= 2


def _measure(side: int, device: str, kind: torch.dtype) -> float:
    import torch

    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
