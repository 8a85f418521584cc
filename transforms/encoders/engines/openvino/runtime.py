"""Heavy libraries of the engines, imported when first used, and kept from calling home."""

from __future__ import annotations

import sys
from typing import Any


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which reports conversions to its makers over the network unless told not to."""
    _keep_telemetry_out()
    import openvino

    return openvino


def import_nncf() -> Any:
    """NNCF without its telemetry."""
    _keep_telemetry_out()
    import nncf

    return nncf


def _keep_telemetry_out() -> None:
    # Both go on without the package where it can't be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
