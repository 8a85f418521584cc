"""Imports pymilvus without libraries that it uses for inputs which vecbeam never passes.

pymilvus imports pandas and requests when it is imported itself, and scipy.sparse at its first search: a quarter of what
a search on the command line imports. It knows data frames and sparse matrices among its arguments by them, and asks
Zilliz Cloud for the regions of a global cluster. Here, pandas and requests are imported when something of them is used.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from transforms.support import process

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_LIBRARY = "pymilvus"
_LOCK = threading.RLock()


def client_class() -> type[MilvusClient]:
    """`pymilvus.MilvusClient`; imported quickly where the process is vecbeam's own, else as Python does."""
    with _LOCK:
        if process.is_own() and _LIBRARY not in sys.modules:
            with _later():
                pymilvus: Any = importlib.import_module(_LIBRARY)
            # It would import scipy.sparse at the first search, to see whether the query is one of its matrices.
            with contextlib.suppress(AttributeError):
                pymilvus.client.utils.SciPyHelper._checked = True
    from pymilvus import MilvusClient

    found: type[MilvusClient] = MilvusClient
    return found


@contextlib.contextmanager
def _later() -> Iterator[None]:
    """While it lasts, pymilvus gets modules that import the real ones when they are used."""
    ours = {name: kind(name) for name, kind in _DEFERRED.items() if _top(name) not in sys.modules}
    sys.modules.update(ours)
    try:
        yield
    finally:
        for name, module in ours.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _Deferred(ModuleType):
    """A module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_real(self.__name__), name)


class _Pandas(_Deferred):
    """pandas, or a module of it. pymilvus names its classes and functions while it is imported."""

    def __getattr__(self, name: str) -> Any:
        asking = sys._getframe(1).f_globals.get("__name__", "")
        loaded = sys.modules.get(self.__name__)
        if loaded not in (None, self) or _top(asking) != _LIBRARY:
            return super().__getattr__(name)
        if name.startswith("__"):
            raise AttributeError(name)  # `from pandas.api.types import` asks for __path__
        return _Kind(name, (), {}) if name[0].isupper() else _function(self.__name__, name)


class _Kind(type):
    """A class of pandas in type hints and `isinstance`: no value is one before pandas is loaded."""

    def __instancecheck__(cls, value: object) -> bool:
        loaded = sys.modules.get("pandas")
        return not isinstance(loaded, _Deferred | None) and isinstance(value, getattr(loaded, cls.__name__))


_DEFERRED: dict[str, type[_Deferred]] = {"pandas": _Pandas, "pandas.api.types": _Pandas, "requests": _Deferred}


def _function(module: str, name: str) -> Callable[..., Any]:
    """A function of pandas that imports it when it is called."""

    def call(*args: Any, **keys: Any) -> Any:
        return getattr(_real(module), name)(*args, **keys)

    return call


def _real(name: str) -> ModuleType:
    with _LOCK:
        for standing in _DEFERRED:
            if _top(standing) == _top(name) and isinstance(sys.modules.get(standing), _Deferred):
                del sys.modules[standing]
        return importlib.import_module(name)


def _top(name: str) -> str:
    """The package that a module is in."""
    return name.partition(".")[0]
