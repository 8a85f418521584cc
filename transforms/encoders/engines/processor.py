"""What the processor at hand can do."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

_FLAGS = Path("/proc/cpuinfo")
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 twice, and Arm


@lru_cache(maxsize=1)
def flags() -> frozenset[str]:
    """Instruction sets by Linux's names; empty where the system does not tell."""
    try:
        lines = _FLAGS.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.split(":", 1)[1].split()
    )


def has_bfloat16() -> bool:
    """Whether matrices are multiplied in bfloat16 by the processor itself, and not by a slow detour."""
    return bool(_BFLOAT16 & flags())


def name() -> str:
    """The processor's model, and the widest instruction sets that matter here."""
    sets = sorted(flags() & {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "sve", "bf16"})
    return " ".join([platform.machine(), *sets])
