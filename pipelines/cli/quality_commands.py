"""The commands `vecbeam evaluate` and `vecbeam compare`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.shared_options import Html, Out, check_files, page
from pipelines.run.terminal.arguments import (
    CONFIGURATION,
    compared_and_configurations,
    configuration,
    refuse_given,
)
from pipelines.run.terminal.command import ConfigPath, Overrides, Page, command

quality = typer.Typer(rich_markup_mode=None)

Vectors = Annotated[
    list[str] | None,
    typer.Option("--vector", metavar="NAME", help="By default the first dense one; with --served repeatable."),
]


@command(quality)
def evaluate(
    context: typer.Context,
    path: ConfigPath = CONFIGURATION,
    queries: Annotated[
        str,
        typer.Option(
            "--queries",
            metavar="FILE",
            help="Queries: JSON lines, or .tsv of ids and texts. By default verify.queries.",
        ),
    ] = "",
    truth: Annotated[
        str,
        typer.Option(
            "--truth",
            metavar="FILE",
            help="Grades of items by query, as BEIR or TREC write them. By default verify.truth.",
        ),
    ] = "",
    known_items: Annotated[
        int, typer.Option("--known-items", metavar="N", help="Makes N queries of the corpus instead.")
    ] = 0,
    title: Annotated[str, typer.Option("--title", metavar="FIELD", help="Known items are found by this column.")] = "",
    several: Annotated[
        list[Path] | None,
        typer.Option("-c", metavar="CONFIG", help="Configurations to compare, instead of CONFIG; repeatable."),
    ] = None,
    vector: Vectors = None,
    served: Annotated[bool, typer.Option("--served", help="Ranks by the served index.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="By which known items and resamples are drawn.")] = 0,
    out: Out = None,
    html: Html = None,
    set_: Overrides = None,
) -> Page:
    """Measures the answers to queries whose answers are known."""
    from pipelines.evaluate import evaluate, evaluate_each

    if several:
        refuse_given(context, ["path"], "-c names each configuration that is compared")
    configs = {str(one): configuration(one, set_) for one in several or [path]}
    check_files(out, html, *configs.values(), tables=["configurations" if several else "slices"])
    options: dict[str, Any] = {"queries": queries, "truth": truth, "known_items": known_items, "title": title}
    options |= {"vector": vector or (), "served": served, "seed": seed}
    if several:
        return page(evaluate_each(configs, **options), out, html)
    return page(evaluate(configs[str(path)], **options), out, html)


@command(quality)
def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A collection, or a configuration.")] = "",
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another one; without it, what is served.")] = "",
    queries: Annotated[str, typer.Option("--queries", metavar="FILE", help="Queries, without labels.")] = "",
    k: Annotated[int, typer.Option("-k", help="Items of each list that are compared.")] = 10,
    several: Annotated[
        list[Path] | None,
        typer.Option("-c", metavar="CONFIG", help="The configurations that built the collections; repeatable."),
    ] = None,
    vector: Annotated[str, typer.Option("--vector", metavar="NAME", help="By default the first dense one.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="By which resamples are drawn.")] = 0,
    out: Out = None,
    html: Html = None,
    set_: Overrides = None,
) -> Page:
    """Shows how the answers of two collections, or configurations, differ."""
    from pipelines.compare import compare

    compared, made_by = compared_and_configurations(old, new, several or [])
    first, second = (configuration(one, set_) if isinstance(one, Path) else one for one in compared)
    configs = [configuration(one, set_) for one in made_by]
    both = [one for one in (first, second) if not isinstance(one, str)]
    check_files(out, html, *configs, *both, tables=["lost"])
    return page(compare(first, second, queries=queries, k=k, vector=vector, seed=seed, configs=configs), out, html)
