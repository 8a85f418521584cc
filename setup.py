"""What pyproject.toml can't say: kernels for AMX are compiled where there is such a processor to compile for."""

import platform
import sys

from setuptools import Extension, setup

FOLDER = "transforms/encoders/engines/amx/kernels"
SETS = ("amx-tile", "amx-bf16", "amx-int8", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16", "fma")

# ctypes loads it: it is not a module of Python. Without a compiler vecbeam is installed without it.
kernels = Extension(
    "transforms.encoders.engines.amx.bert",
    [f"{FOLDER}/bert.cpp"],
    depends=[f"{FOLDER}/{name}.h" for name in ("attention", "fixed", "functions", "linear", "memory", "tiles")],
    extra_compile_args=[
        *("-std=c++17", "-O3", "-fno-math-errno", "-Wall", "-Wextra"),
        # GCC's own headers of intrinsics read what is not set (its bug 105593).
        *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),
        *(f"-m{name}" for name in SETS),
    ],
    optional=True,
)

setup(ext_modules=[kernels] if sys.platform == "linux" and platform.machine() == "x86_64" else [])
