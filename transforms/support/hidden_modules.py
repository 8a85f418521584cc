"""A finder that hides modules from one thread, which then imports without them what takes them for optional."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection


class HiddenModules:
    """A finder for `sys.meta_path` of modules to which some are not installed, in one thread.

    Args:
        names: of the modules that are hidden.
        importing: the module while whose import they are hidden, in the thread that imports it; "" hides them as long
            as the finder is in the path, in the thread that makes it.
    """

    def __init__(self, names: Collection[str], importing: str = "") -> None:
        self._names = frozenset(names)
        self._importing = importing
        self._thread = 0 if importing else threading.get_ident()

    def find_spec(self, name: str, *_: object) -> None:
        """Finds nothing.

        Raises:
            ModuleNotFoundError: if the module is hidden.
        """
        if self._importing and name == self._importing:
            self._thread = threading.get_ident()
        elif name in self._names and self._thread == threading.get_ident() and self._is_hiding():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def _is_hiding(self) -> bool:
        spec = getattr(sys.modules.get(self._importing), "__spec__", None)
        return not self._importing or bool(getattr(spec, "_initializing", False))
