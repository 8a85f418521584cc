"""A command of the command line from a function: its options are the function's signature, and those that all have.

Three names of parameters are not options of their own: `config` is the configuration that the argument CONFIG and
`--set` make, `as_given` is how these were written, `progress` obeys `--quiet`. A function that returns something has
`--json`, and each has `--debug`. Its docstring is the help.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipelines.run.terminal import output
from pipelines.run.terminal.arguments import CONFIGURATION, ENVIRONMENT, configuration
from pipelines.run.terminal.guard import guarded, show
from pipelines.run.terminal.waiting import Waiting

if TYPE_CHECKING:
    from schemas.config import Config

Function = TypeVar("Function", bound=Callable[..., Any])

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a configuration key for this run.")
]
ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", envvar=ENVIRONMENT, help="The configuration, a YAML file.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Prints one JSON object.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Prints one line: the result.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Shows tracebacks and library logs.")]


@dataclass(frozen=True)
class Page:
    """A result that is not a run's report.

    Attributes:
        values: with `--json`.
        text: for people, or what prints it.
        line: instead of it with `--quiet`, where the command has one.
        exit_code: of the command.
    """

    values: Mapping[str, Any]
    text: str | Callable[[], None]
    line: str = ""
    exit_code: int = 0


def command(app: typer.Typer) -> Callable[[Function], Function]:
    """Registers a function as a command of the same name.

    The function imports what is heavy itself. It returns a `Report`, a `Page`, or None if it prints on its own.
    """

    def register(function: Function) -> Function:
        own = inspect.signature(function)
        usual = _usual_options(own)

        def run(**values: Any) -> None:
            as_json, quiet, debug = (values.pop(name, False) for name in ("as_json", "quiet", "debug"))

            def call() -> int:
                given = _arguments(own, values, quiet=quiet)
                has_steps = "progress" in own.parameters or own.return_annotation is None
                with contextlib.nullcontext() if has_steps else Waiting(function.__name__):
                    result = function(**given)
                if isinstance(result, Page):
                    _print(result, as_json=as_json, quiet=quiet)
                    return result.exit_code
                if result is not None:
                    show(result, as_json=as_json, quiet=quiet)
                return 0

            if code := guarded(call, as_json=as_json, quiet=quiet, debug=debug):
                raise typer.Exit(code)

        run.__signature__ = own.replace(parameters=usual, return_annotation=None)  # type: ignore[attr-defined]
        run.__annotations__ = {}  # typer looks for those of the signature here too
        app.command(function.__name__, help=inspect.getdoc(function))(run)
        return function

    return register


def _usual_options(own: inspect.Signature) -> list[Parameter]:
    """The parameters of a command: those of its function, and the usual ones instead of config and progress."""
    names = own.parameters
    options = [each for name, each in names.items() if name not in ("config", "as_given", "progress")]
    if "config" in names:
        options = [option("config", ConfigPath, CONFIGURATION), option("set_", Overrides, None), *options]
    if own.return_annotation is not None:
        options.append(option("as_json", _AsJson, False))
    if "progress" in names:
        options.append(option("quiet", _Quiet, False))
    options.append(option("debug", _Debug, False))
    return [option.replace(kind=Parameter.KEYWORD_ONLY) for option in options]


def option(name: str, annotation: Any, default: Any) -> Parameter:
    """A parameter of a command's function, by keyword only."""
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _arguments(own: inspect.Signature, values: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Arguments of a function, from the values of its command's options."""
    if "config" in own.parameters:
        path, overrides = values["config"], values.pop("set_")
        config = configuration(path, overrides)
        values = values | {"config": config}
        if "progress" in own.parameters:
            _import_quickly(config)
        if "as_given" in own.parameters:
            values["as_given"] = [str(path), *(word for each in overrides or () for word in ("--set", each))]
    if "progress" in own.parameters:
        from pipelines.run.progress import Progress

        values = values | {"progress": Progress(quiet=quiet)}
    return values


def _import_quickly(config: Config) -> None:
    """Leaves out what the libraries of a run import and do not use."""
    from pipelines.run.terminal import light_beam
    from transforms.support.arrow_import import import_arrow

    import_arrow()
    if config.runner.is_local:
        light_beam.prepare()


def _print(page: Page, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        output.result_as_json(page.values, exit_code=page.exit_code)
    elif quiet and page.line:
        output.result(page.line)
    elif isinstance(page.text, str):
        output.result(page.text)
    else:
        page.text()
