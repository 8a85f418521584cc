"""What this machine has: the processor's instruction sets, GPUs, memory, space on its disks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipelines.steps.diagnosis.check import Check, fail, ok, skipped, warn
from schemas.config import Config
from transforms.encoders.engines import processor
from transforms.encoders.engines.extra import has_torch
from transforms.support import memory
from transforms.support.storage import filesystem

GIB = 1 << 30
LITTLE_MEMORY = 2 * GIB
"""A run with a small model of texts peaks at 1 to 2 GiB."""
LITTLE_DISK = GIB
NO_DISK = 100 << 20


def check_machine(config: Config | None) -> Iterator[Check]:
    """Processor, GPU, memory and disks."""
    yield _processor(config)
    yield _gpu(config)
    yield _memory()
    yield from _disks(config)


def _processor(config: Config | None) -> Check:
    encoders = [] if config is None else list(config.vectors.values())
    found = f"{processor.name()}, {psutil.cpu_count() or 1} cores"
    if not processor.has_bfloat16() and any(one.precision == "bfloat16" for one in encoders):
        return warn(
            "processor",
            f"{found}; it does not multiply in bfloat16, which encoder.precision names",
            "use precision: float32, or a processor with avx512_bf16, amx_bf16 or Arm's bf16",
        )
    if not processor.has_wide_int8_sums() and any(one.precision == "int8" for one in encoders):
        return warn(
            "processor",
            f"{found}; it sums int8 in 16 bits, so that encoder.precision: int8 loses more than on newer ones",
            "use precision: float32, or look at the loss in the report",
        )
    return ok("processor", found)


def _gpu(config: Config | None) -> Check:
    wanted = config is not None and any(one.device == "cuda" for one in config.vectors.values())
    if not has_torch():
        if wanted:
            return fail("gpu", "encoder.device is cuda, and torch is not installed", "pip install 'vecbeam[torch]'")
        return skipped("gpu", "torch is not installed, which looks for one")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        return ok("gpu", ", ".join(torch.cuda.get_device_name(number) for number in range(count)))
    if wanted:
        return fail("gpu", "encoder.device is cuda, and torch finds no CUDA device", "set encoder.device: auto")
    return ok("gpu", "none: the processor embeds")


def _memory() -> Check:
    free = memory.available()
    found = f"{free / GIB:.1f} GiB available"
    if free < LITTLE_MEMORY:
        return warn("memory", found, f"end other programs, or use a machine with {LITTLE_MEMORY // GIB} GiB or more")
    return ok("memory", found)


def _disks(config: Config | None) -> Iterator[Check]:
    folders = {"temporary files": tempfile.gettempdir()}
    if config is not None and filesystem.is_local(config.checkpoint):
        folders["the checkpoint"] = config.checkpoint
    if config is not None and config.collection.is_lite:
        folders["Milvus Lite"] = config.collection.uri
    for what, folder in folders.items():
        there = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
        name, free = f"disk of {what}", shutil.disk_usage(there).free
        found = f"{free / GIB:.1f} GiB free in {there}"
        remedy = "free some space" if what != "temporary files" else "free some space, or set TMPDIR to another folder"
        yield (
            fail(name, found, remedy)
            if free < NO_DISK
            else (warn(name, found, remedy) if free < LITTLE_DISK else ok(name, found))
        )
