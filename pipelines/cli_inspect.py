"""The commands that look and change nothing: `vecbeam status`, `doctor` and `export`; see `pipelines.cli`."""

from typing import TYPE_CHECKING

import typer

from pipelines.run.terminal.command import Page, command

if TYPE_CHECKING:
    from schemas.config import Config

inspection = typer.Typer(rich_markup_mode=None)


@command(inspection)
def status(config: "Config") -> Page:
    """Shows what is served, what the checkpoint has, and the last run."""
    from pipelines.status import status, text

    found = status(config)
    return Page(found.as_json(), text(found))
