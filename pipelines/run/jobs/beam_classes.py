"""What Beam finds out about a class of DoFn, kept: it looks again for each instance, a third of a small run's time."""

from __future__ import annotations

from types import MethodType
from typing import Any


def remember() -> None:
    """Makes Beam look at each class of DoFn once in this process, which must be vecbeam's own; may be called again.

    The functions that a `Map` or `FlatMap` wraps belong to the instance: where one is a bound method, which may have
    parameters for state, Beam looks at it each time.
    """
    from apache_beam.transforms import userstate

    look = userstate.get_dofn_specs
    if isinstance(look, _Remembered):
        return
    userstate.get_dofn_specs = _Remembered(look)


class _Remembered:
    """Beam's `get_dofn_specs`, by class."""

    def __init__(self, look: Any) -> None:
        self._look = look
        self._known: dict[type, Any] = {}

    def __call__(self, dofn: Any) -> Any:
        if any(isinstance(value, MethodType) for value in vars(dofn).values()):
            return self._look(dofn)
        kind = type(dofn)
        if kind not in self._known:
            self._known[kind] = self._look(dofn)
        return self._known[kind]
