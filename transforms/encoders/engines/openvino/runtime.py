"""Heavy libraries of the engines, imported when first used, with their telemetry turned off."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which by default reports conversions to its makers over the network."""
    with _telemetry_kept_out():
        return importlib.import_module("openvino")


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
