"""Heavy libraries of the engines, imported when first used, with their telemetry turned off."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

_TELEMETRY = "openvino_telemetry"
_first_use = threading.Lock()


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which by default reports conversions to its makers over the network."""
    with _telemetry_kept_out():
        openvino = importlib.import_module("openvino")
    # The first call fills a static variable of C++, and imports a module of numpy in it. A second thread that calls it
    # meanwhile waits for the variable and keeps Python's lock, which the first one needs: both wait for ever.
    with _first_use:
        openvino.Type.f32.to_dtype()
    return openvino


def import_nncf() -> Any:
    """NNCF without its telemetry."""
    with _telemetry_kept_out():
        return importlib.import_module("nncf")


@contextlib.contextmanager
def _telemetry_kept_out() -> Iterator[None]:
    """Makes the package of both fail to import, for a moment: both take a stub of their own then."""
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(_TELEMETRY, None)
