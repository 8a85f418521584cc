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
