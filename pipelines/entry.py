"""The process of the `vecbeam` command: its streams, signals and variables are set before anything is imported."""

from __future__ import annotations

import contextlib
import gc as garbage
import sys

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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
