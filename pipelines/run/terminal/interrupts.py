"""Ctrl-C and SIGTERM in the command line: a clean stop at the next safe point, and an end within five seconds.

The first signal asks the run to stop (`transforms.support.stop`) and interrupts the main thread where that is not
inside a pipeline. A thread of its own watches: a process that is not out after some seconds is ended, and so is one
that gets the signal again. Nothing is lost by that, as every file exists whole or not at all.

While the run waits for a job on other machines, Ctrl-C at a terminal first asks whether to cancel the job.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from pipelines.run.jobs import question
from pipelines.run.terminal import output
from transforms.support import stop

if TYPE_CHECKING:
    from transforms.support.job import Job

GRACE_S = 3.2
"""Seconds that a run may take to its next safe point."""
REPORT_S = 0.8
"""Seconds that the report of a run that did not get there may take to be written."""
ANSWER_S = 30.0
"""Seconds to wait for an answer about a job; then it is cancelled."""
_SOON_S = 0.3
_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}

_raised = False
_as_json = False


def install(*, as_json: bool, quiet: bool = False) -> None:
    """Takes the signals of this process for the rest of its life.

    Args:
        as_json: prints the interruption as a JSON object, where the process must be ended.
        quiet: asks nothing, as with `as_json`.
    """
    global _as_json
    _as_json = as_json
    question.is_interactive = not (as_json or quiet) and os.isatty(0) and os.isatty(2)
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
    if number == signal.SIGINT and question.open_job() is not None:
        return  # `_watch` asks
    stop.announce(_SIGNALS[signal.Signals(number)])  # `_watch` requests it
    if not _raised and not stop.is_deferred():
        _raised = True
        raise KeyboardInterrupt


def _watch(reading: int) -> None:
    code = 0
    while not code:
        code = _read(reading)
        if code == _SIGNALS[signal.SIGINT] and (job := question.open_job()) is not None and _is_in_front():
            code = _ask(job, reading)
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


def _is_in_front() -> bool:
    """Whether the terminal's input goes to this process: to read it elsewhere would stop the process."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _ask(job: Job, reading: int) -> int:
    """Asks whether a job is to be cancelled; returns the exit code of the stop that follows."""
    with contextlib.suppress(termios.error):
        termios.tcflush(0, termios.TCIFLUSH)  # ignores what was typed before
    deadline = time.monotonic() + ANSWER_S
    said = f"vecbeam: {job} is running. c and Enter, or Ctrl-C again, cancels it; l and Enter leaves it running"
    output.notice(said)
    while time.monotonic() < deadline and question.open_job() is not None:
        ready, _, _ = select.select([reading, 0], [], [], _SOON_S)
        if reading in ready and (code := _read(reading)):
            return code
        if 0 in ready:
            answer = os.read(0, 1024).decode(errors="replace").strip().lower()
            if answer in ("l", "leave"):
                question.leave()
                break
            if answer in ("", "c", "cancel"):  # "" where the terminal was closed
                break
            output.notice(said)
    return _SIGNALS[signal.SIGINT]


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
