"""Imports pyarrow's readers without pandas, which takes longer to import than they do."""

from __future__ import annotations

import importlib
import sys

from transforms.support.hidden_modules import HiddenModules

_PANDAS = "pandas"


def import_arrow() -> None:
    """Imports `pyarrow.dataset`, for Parquet; pandas stays out unless it is loaded.

    pyarrow looks for pandas when it first converts a Python list, to know a Series when it sees one. Methods that need
    pandas, such as `to_pandas`, import it later all the same.
    """
    if _PANDAS in sys.modules:
        return
    without = HiddenModules([_PANDAS])
    sys.meta_path.insert(0, without)
    try:
        arrow = importlib.import_module("pyarrow.lib")
        getattr(arrow._pandas_api, "have_pandas", None)
        importlib.import_module("pyarrow.dataset")
    finally:
        sys.meta_path.remove(without)
