"""The process of the `vecbeam` command: its streams, signals and variables are set before anything is imported."""

from __future__ import annotations

import atexit
import contextlib
import gc as garbage
import os
import sys
import threading
from typing import NoReturn

from pipelines.run.terminal import environment, interrupts, output
from transforms.support import stop


def main() -> None:
    """Entry point of the `vecbeam` command."""
    output.take_streams()
    interrupts.install(as_json="--json" in sys.argv, quiet="--quiet" in sys.argv)
    environment.prepare()
    # Imports leave half a million permanent objects, which the collector would search again and again: half a
    # second during the imports, and another at the end.
    garbage.set_threshold(50_000, 20, 50)
    code = 0
    try:
        from pipelines.cli import app

        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code = 1
    finally:
        garbage.freeze()
    if stop.requested():
        interrupts.finish(code)
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends the process after Python's threads and exit handlers, and before the destructors of native libraries.

    These have nothing to save, and may abort: an encoder on OpenVINO ended with 134 after its result was printed.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter calls; it joins threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
