"""What this processor can do."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

_FLAGS = Path("/proc/cpuinfo")
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 twice, and Arm
_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}  # x86 three times, and Arm


@lru_cache(maxsize=1)
def flags() -> frozenset[str]:
    """Instruction sets by Linux's names; empty if the system does not tell."""
    try:
        lines = _FLAGS.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.split(":", 1)[1].split()
    )


def has_bfloat16() -> bool:
    """Whether the processor itself multiplies matrices in bfloat16, without slow emulation."""
    return bool(_BFLOAT16 & flags())


def has_wide_int8_sums() -> bool:
    """Whether the processor itself sums products of int8 in 32 bits.

    Older x86 processors sum pairs of them in 16 bits first, which overflows (OpenVINO, "saturation issue"):
    https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
    """
    return bool(_INT8 & flags())


def name() -> str:
    """The processor's model, and the widest instruction sets that matter here."""
    sets = sorted(flags() & {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "sve", "bf16"})
    return " ".join([platform.machine(), *sets])
