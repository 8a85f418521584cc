"""A result as one HTML file that needs no network: figures, tables, and the code that draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.steps.results.shown import shown
from pipelines.steps.results.table_file import check_folder
from schemas.errors import ConfigurationError
from transforms.support.extras import need
from transforms.support.storage import filesystem

MOST_ROWS = 500
"""Rows of a table that a page shows."""


@dataclass(frozen=True)
class PageSection:
    """A part of a page: a figure or a table.

    Attributes:
        figure: a plotly figure.
        table: of which the first `MOST_ROWS` rows are shown.
        note: a sentence above it.
    """

    title: str
    figure: Any = None
    table: pa.Table | None = None
    note: str = ""


def check_page_file(path: Path | None) -> None:
    """Raises unless a page can be written to a file of this name.

    Raises:
        ConfigurationError: if it does not end in .html, or its folder does not exist.
        MissingExtraError: if the extra `explore` is not installed.
    """
    if path is None:
        return
    need("explore", "--html", "jinja2", "plotly")
    if path.suffix not in (".html", ".htm"):
        raise ConfigurationError(f"--html: {path} does not end in .html", f"name the file {path.name}.html")
    check_folder(path, "--html")


def write_page(
    path: Path,
    title: str,
    basis: Mapping[str, Any],
    figures: Mapping[str, Any],
    notes: Sequence[str],
    sections: Sequence[PageSection],
) -> None:
    """Writes a page in one atomic step. What comes from the corpus is shown as text, whatever it contains.

    Raises:
        ConfigurationError, MissingExtraError: see `check_page_file`.
        StorageError: if it can't be written.
    """
    check_page_file(path)
    page = template("page.html").render(
        title=title,
        basis=basis,
        figures=figures,
        notes=notes,
        sections=sections,
        most=MOST_ROWS,
        plotly=_plotly_code() if any(one.figure is not None for one in sections) else "",
    )
    filesystem.write_atomic(str(path.absolute()), page.encode("utf-8", "backslashreplace"))


@cache
def template(name: str) -> Any:
    """A template of this folder, which escapes everything that it is given.

    Raises:
        MissingExtraError: if the extra `explore` is not installed.
    """
    need("explore", "a page", "jinja2")
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = _figure_json
    environment.filters["shown"] = shown
    return environment.get_template(name)


def _figure_json(figure: Any) -> Any:
    """A figure as JSON for use in a script: no text in it can end the script."""
    import markupsafe

    text = str(figure.to_json())
    for unsafe, safe in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(unsafe, safe)
    return markupsafe.Markup(text)


def _plotly_code() -> Any:
    import markupsafe
    from plotly.offline import get_plotlyjs

    return markupsafe.Markup(get_plotlyjs())
