"""The commands that look and change nothing: `vecbeam status`, `doctor` and `export`; see `pipelines.cli`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.run.terminal.arguments import CONFIGURATION, ENVIRONMENT, configuration
from pipelines.run.terminal.command import Overrides, Page, command

if TYPE_CHECKING:
    from schemas.config import Config

inspection = typer.Typer(rich_markup_mode=None)


@command(inspection)
def status(config: "Config") -> Page:
    """Shows what is served, what the checkpoint has, and the last run."""
    from pipelines.status import status, text

    found = status(config)
    return Page(found.as_json(), text(found))


@command(inspection)
def doctor(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", envvar=ENVIRONMENT, help="The configuration; without one the machine alone is checked."
        ),
    ] = CONFIGURATION,
    offline: Annotated[bool, typer.Option("--offline", help="Sends no request to another machine.")] = False,
    set_: Overrides = None,
) -> Page:
    """Checks packages, machine, models, store and Milvus."""
    from pipelines.doctor import doctor, text

    # A new user has no configuration yet; a file that is named must exist.
    config = configuration(path, set_) if path != CONFIGURATION or path.exists() else None
    found = doctor(config, offline=offline)
    return Page(found.as_json(), text(found), exit_code=0 if found.is_ready else 1)
