"""The precision that torch computes in, on the current hardware."""

from __future__ import annotations

import logging

from transforms.encoders.engines import processor

log = logging.getLogger("vecbeam")


def computed_precision(asked: str, on_cuda: bool) -> str:
    """The precision of the computation: bfloat16 if the hardware has it, else float16 on GPUs and float32 on CPUs."""
    if asked == "float32":
        return asked
    if on_cuda:
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if processor.has_bfloat16():
        return "bfloat16"
    log.warning("this processor multiplies no bfloat16 matrices; embedding in float32")
    return "float32"
