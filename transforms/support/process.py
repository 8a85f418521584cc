"""Whether this process is vecbeam's own, and so may be changed as a whole: allocators, logging levels.

The command line says so of its process. A Python program that imports vecbeam keeps its process as it is.
"""

from __future__ import annotations

import time

import psutil

_own = False
_has_run = False


def take() -> None:
    """Declares this process to be vecbeam's own."""
    global _own
    _own = True


def is_own() -> bool:
    """Whether `take` was called."""
    return _own


def run_began() -> float:
    """When a run that starts now began for its user, in seconds since the epoch.

    The first run of vecbeam's own process began with the process, before its imports, which users wait for too. In a
    Python program, and after the first run, it begins now.
    """
    global _has_run
    first, _has_run = not _has_run, True
    return float(psutil.Process().create_time()) if first and _own else time.time()
