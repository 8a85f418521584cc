"""Options that several commands have: which rows they look at, and the files that their result is written to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.run.terminal.command import Page

if TYPE_CHECKING:
    from pipelines.steps.results.finding import Finding
    from schemas.config import Config

Served = Annotated[bool, typer.Option("--served", help="Looks at the rows that are served, not at the newest ones.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Writes all rows to a .parquet, .jsonl or .csv file.")
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Writes a page that needs no network.")]


def check_files(out: Path | None, html: Path | None, *configs: "Config", tables: Sequence[str] = ()) -> None:
    """Raises unless the files can be written and are none of a corpus, before anything is computed.

    Args:
        tables: names of the further tables that a finding may have.
    """
    from pipelines.steps.results.finding import further_file
    from pipelines.steps.results.page_file import check_page_file
    from pipelines.steps.results.table_file import check_outside_corpus, check_table_file

    check_table_file(out)
    check_page_file(html)
    further = [("--out", further_file(out, table)) for table in tables] if out is not None else []
    for name, path in (("--out", out), ("--html", html), *further):
        if path is not None:
            for config in configs:
                check_outside_corpus(path, config.corpus, name)


def page(found: "Finding", out: Path | None, html: Path | None) -> Page:
    """The finding as the result of a command, after its files were written."""
    found.written(out, html)
    return Page(found.as_json(), found.text(), exit_code=found.exit_code)
