"""Imports pyarrow's readers without pandas, which takes longer to import than they do."""

from __future__ import annotations

import importlib
import sys
import threading

_PANDAS = "pandas"


def import_arrow() -> None:
    """Imports `pyarrow.dataset`, for Parquet; pandas stays out unless it is loaded.

    pyarrow looks for pandas when it first converts a Python list, to know a Series when it sees one. Methods that need
    pandas, such as `to_pandas`, import it later all the same.
    """
    if _PANDAS in sys.modules:
        return
    without = _Without()
    sys.meta_path.insert(0, without)
    try:
        arrow = importlib.import_module("pyarrow.lib")
        getattr(arrow._pandas_api, "have_pandas", None)
        importlib.import_module("pyarrow.dataset")
    finally:
        sys.meta_path.remove(without)


class _Without:
    """A finder of modules to which pandas is not installed, in the thread that makes it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, *_: object) -> None:
        if name == _PANDAS and threading.get_ident() == self._thread:
            raise ImportError(name, name=name)
