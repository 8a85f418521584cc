"""How a command of the command line runs and ends: its report, errors in a line, exit codes, JSON."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from pipelines.run.terminal import environment, output

if TYPE_CHECKING:
    from schemas.errors import VecbeamError
    from schemas.run_report import Report

T = TypeVar("T")
CONTINUES = "what is in the checkpoint is kept, and the same command continues"


def show(found: Report, *, as_json: bool, quiet: bool = False, error: VecbeamError | None = None) -> None:
    """Prints a report: as JSON, as a page, or with `quiet` as one line."""
    if as_json:
        code = error.exit_code if error is not None else found.exit_code
        facts = error.facts() if error is not None else None
        output.result_as_json(found.as_json(), exit_code=code, error=facts)
        return
    from pipelines.run.report_text import line, text

    page = line(found) if quiet else text(found, with_error=False)
    if page:
        output.result(page)


def guarded(run: Callable[[], T], *, debug: bool, as_json: bool = False, quiet: bool = False) -> T:
    """Runs a command; turns errors into a line on standard error and an exit code, with `as_json` into JSON as well."""
    output.shield(debug=debug)
    _prepare_logging(debug=debug, quiet=quiet)
    from schemas.errors import ConfigurationError, VecbeamError

    try:
        return run()
    except VecbeamError as error:
        report = error.report if error.exit_code != ConfigurationError.exit_code else None
        _end(error, report, as_json=as_json, quiet=quiet, debug=debug)
    except BrokenPipeError:
        # The reader of the output closed it (`| head`): the command is done.
        raise typer.Exit(0) from None
    except KeyboardInterrupt as interruption:
        from transforms.support import stop

        stopped = stop.interruption().with_traceback(interruption.__traceback__)
        _end(stopped, None, as_json=as_json, quiet=quiet, debug=debug)
    except output.OutputError as error:
        output.notice(f"vecbeam: {error}; what the command did is done, and vecbeam report shows it")
        raise typer.Exit(1) from None
    except BaseException as error:
        # A panic of a library in Rust is not an Exception, and would end the command silently.
        if isinstance(error, (SystemExit, GeneratorExit, typer.Exit, typer.Abort)):
            raise
        if debug:
            output.notice("".join(traceback.format_exception(error)).rstrip())
        unexpected = VecbeamError(
            f"unexpected {type(error).__name__}: {_last_line(error)}", f"--debug shows the traceback; {CONTINUES}"
        )
        _end(unexpected, None, as_json=as_json, quiet=quiet, debug=False, name=type(error).__name__)


def _end(
    error: VecbeamError, report: Report | None, *, as_json: bool, quiet: bool, debug: bool, name: str = ""
) -> NoReturn:
    """Prints what is left of a command that failed, its error last, and exits with its code.

    Args:
        name: of the class, where the error stands for one of another kind.
    """
    if debug:
        output.notice("".join(traceback.format_exception(error)).rstrip())
    # Where standard output is gone, the exit code and the line below still tell.
    with contextlib.suppress(BrokenPipeError, output.OutputError):
        if report is not None:
            show(report, as_json=as_json, quiet=quiet, error=error)
        elif as_json:
            facts = error.facts()
            output.result_as_json({}, exit_code=error.exit_code, error={**facts, "class": name or facts["class"]})
    for line in getattr(error, "lines", ()) or [str(error)]:
        output.notice(f"vecbeam: {output.clean_line(line)}", last=True)
    raise typer.Exit(error.exit_code) from None


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""


class _Notices(logging.Handler):
    """Lines of logs, above the progress."""

    def emit(self, record: logging.LogRecord) -> None:
        output.notice(self.format(record))


def _prepare_logging(*, debug: bool, quiet: bool) -> None:
    if debug:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    else:
        logging.basicConfig(level=logging.CRITICAL, format="%(name)s: %(message)s", handlers=[_Notices()])
        _silence_libraries()
    ours = logging.INFO if debug else logging.ERROR if quiet else logging.WARNING
    logging.getLogger("vecbeam").setLevel(ours)


def _silence_libraries() -> None:
    environment.silence()
    for name in ("apache_beam", "pymilvus", "milvus_lite", "transformers", "sentence_transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    import warnings

    warnings.simplefilter("ignore")


class Commands(TyperGroup):
    """The commands, which report wrong usage in one line, or in JSON with `--json`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        pages = io.StringIO()  # of help and completion, which typer prints by itself
        if output.is_taken():
            sys.stdout = pages
        try:
            try:
                code = super().main(given, prog_name or "vecbeam", complete_var, False, windows_expand_args, **extra)
            finally:
                if pages.getvalue():
                    output.result(pages.getvalue().rstrip("\n"), styled=True)
        except typer.Abort:
            code = 130
        except BrokenPipeError:
            code = 0
        except output.OutputError as error:
            output.notice(f"vecbeam: {error}")
            code = 1
        except Exception as error:
            if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
                raise
            code = _wrong_usage(error, given)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


def _wrong_usage(error: Any, given: list[str]) -> int:
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    context = getattr(error, "ctx", None)
    place = context.command_path if context is not None else "vecbeam"
    if type(error).__name__ == "NoArgsIsHelpError":
        output.result(error.format_message())
        return 2
    message, remedy = message[:1].lower() + message[1:], f"{place} --help shows the options"
    output.notice(f"vecbeam: {message}. {remedy}")
    if "--json" in given:
        facts = {"class": "UsageError", "message": message, "remedy": remedy}
        with contextlib.suppress(BrokenPipeError, output.OutputError):
            output.result_as_json({}, exit_code=2, error=facts)
    return 2
