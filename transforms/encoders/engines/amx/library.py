"""The compiled kernels, and whether they can run here."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from transforms.encoders.engines import processor

VERSION = 2
NEEDED = frozenset({"amx_tile", "amx_bf16", "amx_int8", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"})


class Numbers(IntEnum):
    """Number types of the kernels: `vecbeam::Numbers` of linear.h."""

    BFLOAT16 = 0
    SPLIT = 1
    FIXED = 2


class Shape(ctypes.Structure):
    """Shape of a model: `vecbeam_shape` of bert.cpp."""

    _fields_ = (
        ("hidden", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("layers", ctypes.c_int64),
        ("between", ctypes.c_int64),
        ("first_position", ctypes.c_int64),
        ("epsilon", ctypes.c_float),
        ("numbers", ctypes.c_int32),
        ("pooling", ctypes.c_int32),
    )


def path() -> Path | None:
    """Path of the compiled kernels; None if installing vecbeam did not compile them."""
    spec = find_spec("transforms.encoders.engines.amx.bert")
    return Path(spec.origin) if spec and spec.origin else None


def lacking() -> str:
    """Why the kernels can't run here; "" where they can."""
    if not processor.flags() >= NEEDED:
        return "this processor has no AMX with bfloat16"
    found = path()
    if found is None:
        return "installing vecbeam did not compile the kernels: it needs a C++ compiler (g++) to do so"
    kernels = _load(found)
    if kernels.vecbeam_version() != VERSION:
        return f"{found} was compiled from another version: install vecbeam again"
    return "" if kernels.vecbeam_permit() == 0 else "the operating system does not grant AMX's registers"


def load() -> ctypes.CDLL:
    """The kernels, after `lacking` found nothing."""
    found = path()
    assert found is not None
    return _load(found)


@lru_cache(maxsize=1)
def _load(found: Path) -> ctypes.CDLL:
    kernels = ctypes.CDLL(str(found))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    kernels.vecbeam_new.argtypes, kernels.vecbeam_new.restype = [ctypes.POINTER(Shape), pointer], pointer
    kernels.vecbeam_run.argtypes, kernels.vecbeam_run.restype = [pointer] * 3 + [number, pointer], number
    kernels.vecbeam_delete.argtypes, kernels.vecbeam_delete.restype = [pointer], None
    return kernels
