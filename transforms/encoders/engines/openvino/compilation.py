"""Models that OpenVINO has compiled, kept on disk: importing one takes a quarter of the time of compiling it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transforms.encoders.engines import processor
from transforms.encoders.engines.cache import Origin, cant_write, kept
from transforms.encoders.engines.openvino.runtime import import_openvino

log = logging.getLogger("vecbeam")
_FILE = "model.blob"
_mapped: list[Any] = []
"""Files that compiled models use where they are mapped. A model does not keep its file mapped, and OpenVINO crashes
where that ends too early: they stay until the process ends. The pages belong to the file, and its workers share them.
"""


def compiled(conversion: Origin, make: Callable[[], Path], properties: Mapping[str, str]) -> Any:
    """Returns an openvino.CompiledModel for this processor, from the cache where it has been compiled before.

    Args:
        conversion: the origin of the converted model.
        make: returns the converted model's model.xml; called if the cache has nothing for this processor and these
            properties.
        properties: of the CPU plugin.

    Raises:
        EncoderError: if the cache can't be written.
    """
    openvino = import_openvino()
    core = openvino.Core()
    fresh = []

    def save(folder: Path) -> None:
        model = core.compile_model(make(), "CPU", dict(properties))
        fresh.append(model)
        try:
            (folder / _FILE).write_bytes(model.export_model().getbuffer())
        except OSError as error:
            raise cant_write(folder, error) from error

    named = [f"{name}={value}" for name, value in sorted(properties.items())]
    path = kept(conversion.followed("compiled", openvino.__version__, processor.name(), *named), save) / _FILE
    if fresh:
        return fresh[0]
    try:
        blob = openvino.Tensor(np.memmap(path, np.uint8, "c"), shared_memory=True)
        model = core.import_model(blob, "CPU", dict(properties))
    except RuntimeError as error:
        log.debug("OpenVINO does not take the compiled model in %s: %s", path, error)
        return core.compile_model(make(), "CPU", dict(properties))
    _mapped.append(blob)
    return model
