"""What a device's matrix units do a second: the most that a model could reach there."""

from __future__ import annotations

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import EncoderError
from schemas.identity import digest
from transforms.encoders.engines import processor
from transforms.encoders.engines.kept import kept

if TYPE_CHECKING:
    import torch

SIDE = {"cpu": 2048, "cuda": 8192}
LEAST_SIDE = 512
ROUNDS = 8


def matrix_rate(device: str, precision: str) -> float:
    """Floating point operations a second by `measure`, once a machine: kept, where the cache can be written.

    Args:
        device: cpu or cuda.
        precision: what an engine computes in.
    """
    # int8 is held against the fastest floating point products of the same processor.
    if precision == "int8":
        precision = "bfloat16" if processor.has_bfloat16() else "float32"

    def make(folder: Path) -> None:
        (folder / "rate.json").write_text(json.dumps({"flops_per_second": measure(device, precision)}))

    name = digest(["matrix rate", _name(device), precision, version("torch")], 32)
    try:
        folder = kept(name, make)
    except EncoderError:  # torch wants no cache, and embeds without one
        return measure(device, precision)
    return float(json.loads((folder / "rate.json").read_text())["flops_per_second"])


def _name(device: str) -> str:
    if device == "cpu":
        return f"{processor.name()}, {len(os.sched_getaffinity(0))} cores"
    import torch

    return str(torch.cuda.get_device_name())


def measure(device: str, precision: str) -> float:
    """Floating point operations a second of torch's product of two large square matrices, the best of some rounds.

    They are as large as `SIDE`, or as fits beside the model on a GPU.

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
