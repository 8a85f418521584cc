"""The commands `vecbeam evaluate` and `vecbeam compare`; see `pipelines.cli`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_explore import Html, Out, check_files, page
from pipelines.run.terminal.arguments import CONFIGURATION, ENVIRONMENT, configuration
from pipelines.run.terminal.command import Overrides, Page, command

quality = typer.Typer(rich_markup_mode=None)

Vectors = Annotated[
    list[str] | None,
    typer.Option("--vector", metavar="NAME", help="By default the first dense one; with --served repeatable."),
]


@command(quality)
def evaluate(
    path: Annotated[
        Path, typer.Argument(metavar="CONFIG", envvar=ENVIRONMENT, help="The configuration, a YAML file.")
    ] = CONFIGURATION,
    queries: Annotated[str, typer.Option("--queries", metavar="FILE", help="Queries, as JSON lines.")] = "",
    truth: Annotated[
        str, typer.Option("--truth", metavar="FILE", help="Grades of items by query, as BEIR or TREC write them.")
    ] = "",
    known_items: Annotated[
        int, typer.Option("--known-items", metavar="N", help="Makes N queries of the corpus instead.")
    ] = 0,
    title: Annotated[str, typer.Option("--title", metavar="FIELD", help="Known items are found by this column.")] = "",
    vector: Vectors = None,
    served: Annotated[bool, typer.Option("--served", help="Ranks by the served index.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="By which known items and resamples are drawn.")] = 0,
    out: Out = None,
    html: Html = None,
    set_: Overrides = None,
) -> Page:
    """Measures the answers to queries whose answers are known."""
    check_files(out, html)
    from pipelines.evaluate import evaluate

    found = evaluate(
        configuration(path, set_),
        queries=queries,
        truth=truth,
        known_items=known_items,
        title=title,
        vector=vector or (),
        served=served,
        seed=seed,
    )
    return page(found, out, html)
