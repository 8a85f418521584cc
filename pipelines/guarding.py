"""How a command of the command line runs and ends: its report, errors in a line, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from schemas.config import Config
    from schemas.report import Report

T = TypeVar("T")


def reporting(
    command: Callable[[Config], Report],
    config: Path,
    overrides: list[str] | None,
    *,
    as_json: bool,
    debug: bool,
) -> None:
    """Runs a command that ends in a report, and prints it whichever way it ends."""

    def show(found: Report) -> None:
        from pipelines.report import text

        print(json.dumps(found.as_json()) if as_json else text(found, with_error=False), flush=True)

    def run() -> None:
        from schemas.errors import ConfigurationError, VecbeamError
        from schemas.settings import load_config

        try:
            found = command(load_config(config, overrides or ()))
        except VecbeamError as error:
            if error.report is not None and error.exit_code != ConfigurationError.exit_code:
                show(error.report)
            raise
        show(found)

    guarded(run, debug=debug)


def guarded(run: Callable[[], T], *, debug: bool) -> T:
    """Runs a command; turns errors into one line on standard error and an exit code, Ctrl-C into a stop."""
    logging.basicConfig(level=logging.INFO if debug else logging.CRITICAL, stream=sys.stderr)
    logging.getLogger("vecbeam").setLevel(logging.INFO if debug else logging.WARNING)
    if not debug:
        _silence_libraries()
    from schemas.errors import VecbeamError

    signal.signal(signal.SIGINT, _Interrupts())
    try:
        return run()
    except VecbeamError as error:
        if debug:
            raise
        print(f"vecbeam: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        # The reader of our output went away (`| head`): what was asked for is done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        print("vecbeam: stopped; run the same command to continue", file=sys.stderr)
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            raise
        print(
            f"vecbeam: unexpected {type(error).__name__}: {_last_line(error)} (--debug shows the traceback; "
            "what is in the checkpoint is kept, and the same command continues)",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _silence_libraries() -> None:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("apache_beam", "pymilvus", "milvus_lite", "transformers", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import warnings

    warnings.simplefilter("ignore")


class _Interrupts:
    """The first Ctrl-C stops after the batch at hand, the second one at once."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, *_: Any) -> None:
        self._count += 1
        if self._count > 1 or "transforms.stopping" not in sys.modules:
            print("vecbeam: stopped; run the same command to continue", file=sys.stderr)
            os._exit(1)
        from transforms import stopping

        print("vecbeam: stopping after the batch at hand; Ctrl-C again stops at once", file=sys.stderr)
        stopping.request_stop()
