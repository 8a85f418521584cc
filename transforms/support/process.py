"""Whether this process is vecbeam's own, and so may be changed as a whole: allocators, logging levels.

The command line says so of its process. A Python program that imports vecbeam keeps its process as it is.
"""

from __future__ import annotations

_own = False


def take() -> None:
    """Declares this process to be vecbeam's own."""
    global _own
    _own = True


def is_own() -> bool:
    """Whether `take` was called."""
    return _own
