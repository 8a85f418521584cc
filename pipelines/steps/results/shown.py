"""A value of a result as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_DIGITS = 1e15
"""From here on a number is shown by its exponent."""


def shown(value: Any) -> str:
    """A value in one line.

    >>> shown(1234), shown(0.5), shown({"a": 1, "low": None}), shown([0.25, "b"]), shown(None)
    ('1,234', '0.5000', 'a 1', '0.2500, b', '')
    >>> shown(-1e308)
    '-1e+308'
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < MOST_DIGITS else f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    return str(value)
