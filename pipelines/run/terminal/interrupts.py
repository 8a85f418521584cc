"""Ctrl-C and SIGTERM in the command line: a clean stop at the next safe point, and an end within five seconds.

The first signal asks the run to stop (`transforms.support.stop`) and interrupts the main thread where that is not
inside a pipeline. A thread of its own watches: a process that is not out after some seconds is ended, and so is one
that gets the signal again. Nothing is lost by that, as every file exists whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from pipelines.run.terminal import output
from transforms.support import stop

GRACE_S = 3.2
"""Seconds that a run may take to its next safe point."""
REPORT_S = 0.8
"""Seconds that the report of a run that did not get there may take to be written."""
_SOON_S = 0.3
_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}

_raised = False
_as_json = False


def install(*, as_json: bool) -> None:
    """Takes the signals of this process for the rest of its life.

    Args:
        as_json: prints the interruption as a JSON object, where the process must be ended.
    """
    global _as_json
    _as_json = as_json
    if threading.current_thread() is not threading.main_thread():
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and `&` in a script leave it
            signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    threading.Thread(target=_watch, args=(reading,), name="interrupts", daemon=True).start()


def end(code: int) -> NoReturn:
    """Ends the process at once, with the terminal as it was."""
    with contextlib.suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            child.kill()
    output.restore_terminal()
    os._exit(code)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    global _raised
    stop.request_stop(_SIGNALS[signal.Signals(number)])
    if not _raised and not stop.is_deferred():
        _raised = True
        raise KeyboardInterrupt


def _watch(reading: int) -> None:
    code = 0
    while not code:
        code = _read(reading)
    stop.request_stop(code)
    deadline = time.monotonic() + GRACE_S
    if not _another(reading, _SOON_S):
        output.notice("vecbeam: stopping at the next safe point; Ctrl-C again ends at once")
        if not _another(reading, deadline - time.monotonic()) and stop.last_words is not None:
            writer = threading.Thread(target=stop.last_words, name="last words", daemon=True)
            writer.start()
            writer.join(REPORT_S)
    _say_last()
    end(code)


def finish(code: int) -> NoReturn:
    """Ends a process that must stop, without waiting for threads of libraries, and reports it if nothing has."""
    if code and not output.has_ended():
        _say_last()
        code = stop.interruption().exit_code
    end(code)


def _say_last() -> None:
    output.restore_terminal()
    error = stop.interruption()
    output.last_words(2, f"vecbeam: {error}")
    if _as_json and not output.has_result():
        output.last_words(1, output.as_json({}, exit_code=error.exit_code, error=error.facts()))


def _read(reading: int) -> int:
    """The exit code for the next signals, 0 if vecbeam handles none of them."""
    for number in os.read(reading, 64):
        if number in _SIGNALS:
            return _SIGNALS[signal.Signals(number)]
    return 0


def _another(reading: int, seconds: float) -> bool:
    """Whether a signal comes again within some seconds."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0] and _read(reading):
            return True
    return False


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    # An interruption inside a destructor or a callback is not lost: the request to stop remains.
    if not isinstance(found.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(found)
