"""A value that each worker makes when it first needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Makes its value at the first `get`, and travels without it.

    In a DoFn it stands in for `functools.cached_property`: Beam looks at every attribute of a DoFn while it builds the
    graph, which would make them all there and send them to the workers.

    Args:
        make: gives the value; has to be picklable.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: list[T] = []

    def get(self) -> T:
        """The value."""
        if not self._values:
            self._values.append(self._make())
        return self._values[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make, "_values": []}
