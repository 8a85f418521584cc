"""Standard output and standard error of the command line: what is printed arrives whole, safe, and alone.

Results go to standard output, everything else to standard error. Text of a corpus is cleaned before a terminal sees
it. Libraries print where they like, from C as well; while a command runs, what they print goes nowhere, or with
`--debug` to standard error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

FORMAT_VERSION = 1
"""Format version of all JSON of the command line; a renamed or removed key raises it."""

# Control characters, and those that reorder or break lines. Tab and newline are left: they are the layout of a page.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NARROWEST = 20
_USUAL_WIDTH = 80

_streams: dict[int, TextIO | None] = {}
_live: list[Console] = []
_lock = threading.RLock()
_printed = False
_ended = False


class OutputError(Exception):
    """The result could not be written to standard output."""


def clean(text: str) -> str:
    r"""Text that is safe on a terminal: control characters, bidirectional marks and lone surrogates as escapes.

    >>> clean("\x1b[31mred")
    '\\x1b[31mred'
    """
    return _UNSAFE.sub(_escape, text)


def clean_line(text: str) -> str:
    """The same in one line: white space of any kind becomes one space."""
    return clean(" ".join(text.split()))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python keeps it in names and arguments
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def take_streams() -> None:
    """Takes standard output and standard error for the command line alone, for the rest of the process.

    They keep their places until `shield`. A stream that is closed gets a stand-in, so that no file that is opened
    later gets its number, and with it what others print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
            is_open = True
        except OSError:
            is_open = False
            os.open(os.devnull, os.O_RDWR)
        if number:
            _streams[number] = _own(number) if is_open else None
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = _streams[1] or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = _streams[2] or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if (errors := _streams[2]) is not None:
        # A crash in a library's own code still says where, though what else it prints is not shown.
        faulthandler.enable(errors.fileno())


def _own(number: int) -> TextIO:
    given = sys.stdout if number == 1 else sys.stderr
    encoding = getattr(given, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        os.fdopen(os.dup(number), "wb", closefd=False),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _stream(number: int) -> TextIO | None:
    # Not taken: in tests, and where the functions of commands are called from Python.
    return _streams.get(number, sys.stdout if number == 1 else sys.stderr)


def shield(*, debug: bool) -> None:
    """From here on only this module writes to the terminal or to standard output; for the command line alone.

    Args:
        debug: sends what others print to standard error.
    """
    if not _streams:
        return
    errors = _streams[2]
    target = os.dup(errors.fileno()) if debug and errors is not None else os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout = sys.stderr = open(target, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115


def result(text: str, *, styled: bool = False) -> None:
    """Prints a result for people on standard output.

    Args:
        styled: the text has a console's own escapes, and was cleaned before it got them.

    Raises:
        BrokenPipeError: if its reader went away.
        OutputError: if it can't be written.
    """
    _write((text if styled else clean(text)) + "\n")


def result_as_json(values: Mapping[str, Any], *, exit_code: int = 0, error: Mapping[str, str] | None = None) -> None:
    """Prints one JSON object on standard output, in ASCII; with format_version, exit_code and error.

    A report has these keys itself.

    Raises:
        BrokenPipeError: if its reader went away.
        OutputError: if it can't be written.
    """
    _write(as_json(values, exit_code=exit_code, error=error) + "\n")


def as_json(values: Mapping[str, Any], *, exit_code: int = 0, error: Mapping[str, str] | None = None) -> str:
    """The JSON object that `result_as_json` prints."""
    return json.dumps({"format_version": FORMAT_VERSION, "exit_code": exit_code, "error": error, **values})


def _write(text: str) -> None:
    global _printed
    _printed = True
    stream = _stream(1)
    if stream is None:
        raise OutputError("standard output is closed")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _give_up(stream)
        raise
    except UnicodeEncodeError:  # a stream of the host program, with its own encoding
        stream.write(text.encode(stream.encoding or "ascii", "backslashreplace").decode(stream.encoding or "ascii"))
        stream.flush()
    except OSError as error:
        _give_up(stream)
        raise OutputError(f"can't write to standard output: {error.strerror}") from error


def _give_up(stream: TextIO) -> None:
    # What is left in its buffer would be retried at the end of the process.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def notice(text: str, *, last: bool = False) -> None:
    """Prints a line on standard error, above a shown progress; ignores a closed stream.

    Args:
        last: the line says how the command ended.
    """
    global _ended
    _ended = _ended or last
    with _lock:
        if _live:
            from rich.text import Text

            with contextlib.suppress(OSError):
                _live[-1].print(Text(clean(text)), soft_wrap=True)
            return
        stream = _stream(2)
        if stream is not None:
            try:
                stream.write(clean(text) + "\n")
                stream.flush()
            except (OSError, ValueError):
                _give_up(stream)


def console(number: int = 2) -> Console:
    """A rich console on standard output (1) or standard error (2), of a width that shows something."""
    from rich.console import Console

    stream = _stream(number)
    made = Console(file=stream or open(os.devnull, "w", encoding="utf-8"), soft_wrap=False)  # noqa: SIM115
    if made.width < _NARROWEST:
        made.width = _USUAL_WIDTH
    return made


def is_terminal(number: int) -> bool:
    """Whether standard output (1) or standard error (2) is a terminal."""
    stream = _stream(number)
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False


@contextlib.contextmanager
def drawing(on: Console) -> Iterator[None]:
    """A block in which a live line is drawn on a console: notices go above it."""
    _live.append(on)
    try:
        yield
    finally:
        _live.remove(on)


def restore_terminal() -> None:
    """Clears the live line and shows the cursor, without a lock: for a process that ends at once."""
    stream = _streams.get(2)
    if stream is not None and _live:
        with contextlib.suppress(OSError):
            os.write(stream.fileno(), b"\r\x1b[2K\x1b[?25h")


def last_words(number: int, text: str) -> None:
    """A line on standard output (1) or standard error (2) without a lock: for a process that ends at once."""
    stream = _stream(number)
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            os.write(stream.fileno(), f"{clean(text)}\n".encode("ascii", "backslashreplace"))


def is_taken() -> bool:
    """Whether `take_streams` was called: this is the process of the command line."""
    return bool(_streams)


def has_ended() -> bool:
    """Whether standard error shows how the command ended."""
    return _ended


def has_result() -> bool:
    """Whether a result was printed."""
    return _printed
