"""The commands that look and change nothing: `vecbeam status`, `doctor` and `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.shared_options import Served
from pipelines.run.terminal.arguments import CONFIGURATION, ENVIRONMENT, configuration
from pipelines.run.terminal.command import ConfigPath, Overrides, Page, command

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
    """Checks packages, machine, models, runner, store and Milvus."""
    from pipelines.doctor import doctor, text

    # A new user has no configuration yet; a file that is named must exist.
    config = configuration(path, set_) if path != CONFIGURATION or path.exists() else None
    found = doctor(config, offline=offline)
    return Page(found.as_json(), text(found), exit_code=0 if found.is_ready else 1)


@command(inspection)
def export(
    rows_file: Annotated[
        str,
        typer.Argument(metavar="ROWS_FILE", help="A .parquet or .jsonl file, or a folder for TensorBoard's projector."),
    ],
    path: ConfigPath = CONFIGURATION,
    columns: Annotated[
        str, typer.Option("--columns", metavar="NAME,NAME", help="The columns to write, by default all.")
    ] = "",
    vector: Annotated[
        list[str] | None,
        typer.Option("--vector", metavar="NAME", help="By default all; for TensorBoard the first one; repeatable."),
    ] = None,
    without_vectors: Annotated[bool, typer.Option("--without-vectors", help="Leaves out the vectors.")] = False,
    served: Served = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replaces the file if it exists.")] = False,
    set_: Overrides = None,
) -> Page:
    """Writes the live rows as a file that other tools read."""
    from pipelines.export import export, text

    found = export(
        configuration(path, set_),
        rows_file,
        columns=[name for part in columns.split(",") if (name := part.strip())],
        vector=vector or (),
        without_vectors=without_vectors,
        served=served,
        overwrite=overwrite,
    )
    return Page(found.as_json(), text(found))
