"""Models that OpenVINO has compiled, kept on disk: importing one takes a quarter of the time of compiling it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transforms.encoders.engines import processor
from transforms.encoders.engines.cache import Origin, cant_write, kept
from transforms.encoders.engines.openvino.runtime import import_openvino

_FILE = "model.blob"


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
    # From a stream, of which OpenVINO copies what it needs. A mapped file would save that memory, but a compiled model
    # does not keep it mapped, and a file that is cut while it is mapped ends the process.
    return core.import_model(io.BytesIO(path.read_bytes()), "CPU", dict(properties))
