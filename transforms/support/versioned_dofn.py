"""The base of every DoFn: a worker whose vecbeam is another one than the launcher's refuses it when it unpickles it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import apache_beam as beam

from schemas.errors import VersionMismatchError


class VersionedDoFn(beam.DoFn):  # type: ignore[misc]
    """A DoFn that carries the launcher's version of vecbeam.

    A worker unpickles the functions of a graph when it starts on it. The version comes first in the pickle: it is
    compared before the class, its module and its state are looked up, which another version may not have.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _restored, (_Launcher(installed_version()), type(self), self.__dict__)


class _Launcher:
    """The version of who made a graph; it can't be unpickled under another one."""

    def __init__(self, launcher: str) -> None:
        self._version = launcher

    def __reduce__(self) -> tuple[Callable[[str], _Launcher], tuple[str]]:
        return _compared, (self._version,)


def _compared(launcher: str) -> _Launcher:
    here = installed_version()
    # A folder of sources that is not installed tells no version.
    if here and launcher and here != launcher:
        raise VersionMismatchError(
            f"the worker {socket.gethostname()} has vecbeam {here}, and the run was started with vecbeam {launcher}",
            f"install vecbeam {launcher} on the workers (with an image: runner.sdk_container_image), "
            f"or start the run with vecbeam {here}",
        )
    return _Launcher(launcher)


def _restored(_: _Launcher, kind: type[VersionedDoFn], state: Mapping[str, Any]) -> VersionedDoFn:
    do_fn = kind.__new__(kind)
    do_fn.__dict__.update(state)
    return do_fn


@cache
def installed_version() -> str:
    """The version of vecbeam that is installed in this process, "" where it runs from sources alone."""
    try:
        return version("vecbeam")
    except PackageNotFoundError:
        return ""
