"""The base of errors that cost one item, which becomes a reject."""

from __future__ import annotations


class ItemError(Exception):
    """Something about one item that can't be used.

    Args:
        error: CamelCase and countable.
        reason: a sentence.
    """

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason


def said_by_library(error: Exception) -> str:
    """What a library says of an input, where its errors can do so without numbers and places in memory.

    Those mean nothing to a user, and a place in memory makes the same reject another one in each run.
    """
    # soundfile's errors have the first, PyAV's and the system's the second.
    return str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error)
