"""Whether this process is vecbeam's own, and so may be changed as a whole: allocators, logging levels.

The command line says so of its process. A Python program that imports vecbeam keeps its process as it is.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

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
    return _process_began() if first and _own else time.time()


def _process_began() -> float:
    """psutil adds the process's ticks to a time of the machine's start that Linux gives in whole seconds."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):  # not Linux, where psutil knows the time itself
        return float(psutil.Process().create_time())
    return time.time() - (since_boot - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
