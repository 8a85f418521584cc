"""The commands of `vecbeam explore`."""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.shared_options import Html, Out, Served, check_files, page
from pipelines.run.terminal.arguments import config_and_words, configuration, refuse_given
from pipelines.run.terminal.command import Overrides, Page, command, option

if TYPE_CHECKING:
    from pipelines.steps.results.finding import Finding
    from schemas.config import Config

explore = typer.Typer(help="Shows what the vectors of the corpus tell.", no_args_is_help=True, rich_markup_mode=None)

MOST_ROWS = 200_000
MOST_POINTS = 100_000
Vector = Annotated[str, typer.Option("--vector", metavar="NAME", help="The vector, by default the first dense one.")]
Rows = Annotated[int, typer.Option("--sample", min=1, help="Most rows to look at; of more, a sample is drawn.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="By which a sample is drawn.")]
_ROWS = (
    option("vector", Vector, ""),
    option("sample", Rows, MOST_ROWS),
    option("seed", Seed, 0),
    option("served", Served, False),
    option("out", Out, None),
    option("html", Html, None),
)
"""The options of each command that looks at rows, after its own."""


def explores(function: Callable[..., "Finding"]) -> Callable[..., Page]:
    """Registers a function as a command of `vecbeam explore` that looks at rows, with the options that all have.

    The function gets the values of these as `**rows`; a parameter of its own replaces the option of the same name. It
    does not get `--out` and `--html`, which write what it returns.
    """
    own = inspect.signature(function)
    usual = {each.name for each in _ROWS}
    options = [
        each for each in own.parameters.values() if each.name not in usual and each.kind != Parameter.VAR_KEYWORD
    ]
    options += [own.parameters.get(each.name, each) for each in _ROWS]

    @functools.wraps(function)
    def run(*, out: Path | None, html: Path | None, **values: Any) -> Page:
        check_files(out, html, values["config"])
        return page(function(**values), out, html)

    parameters = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in options]
    run.__signature__ = own.replace(parameters=parameters, return_annotation=Page)  # type: ignore[attr-defined]
    return command(explore)(run)


@explores
def duplicates(
    config: "Config",
    above: Annotated[float, typer.Option("--above", help="Least cosine of near duplicates.")] = 0.95,
    by: Annotated[str, typer.Option("--by", metavar="row|item", help="What is compared.")] = "row",
    keep: Annotated[
        str, typer.Option("--keep", metavar="first|last", help="Which one of a group is marked to be kept.")
    ] = "first",
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", metavar="FILE", help="Measures how often the threshold is wrong: CSV of a, b, same."),
    ] = None,
    **rows: Any,
) -> "Finding":
    """Finds rows, or items, that are nearly the same."""
    from pipelines.explore.duplicates import duplicates

    return duplicates(config, above=above, by=by, keep=keep, pairs=pairs, **rows)


@explores
def outliers(
    config: "Config",
    context: typer.Context,
    k: Annotated[int, typer.Option("-k", min=1, help="To which neighbour distances are measured.")] = 10,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="distance|density|label",
            help="Measures distances, local outlier factors, or how well values of --group fit.",
        ),
    ] = "distance",
    above: Annotated[
        float | None, typer.Option("--above", help="Least score of an outlier; by default 3.5, of labels 0.9.")
    ] = None,
    group: Annotated[
        str, typer.Option("--group", metavar="FIELD", help="Compares rows with those of the same value.")
    ] = "",
    new: Annotated[bool, typer.Option("--new", help="Compares new rows with those of the snapshot before.")] = False,
    numbers: Annotated[
        list[str] | None,
        typer.Option("--number", metavar="FIELD", help="Compares columns of numbers, not vectors; repeatable."),
    ] = None,
    **rows: Any,
) -> "Finding":
    """Finds rows that are unusually far from all others."""
    from pipelines.explore.outliers import outliers

    if by == "label":
        refuse_given(context, ["k"], "--by label measures no neighbours")
    return outliers(config, k=k, by=by, above=above, group=group, new=new, numbers=numbers or (), **rows)


@explores
def clusters(
    config: "Config",
    n: Annotated[int | None, typer.Option("-n", min=2, help="How many; by default chosen by silhouette.")] = None,
    field: Annotated[str, typer.Option("--field", help="Compares the clusters with the values of a field.")] = "",
    **rows: Any,
) -> "Finding":
    """Groups similar rows, and names the groups."""
    from pipelines.explore.clusters import clusters

    return clusters(config, n=n, field=field, **rows)


@command(explore)
def similar(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] A B ...",
            help="Ids of rows or items, or texts; before them the configuration, if it is not ./vecbeam.yaml.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text, even if a row has such an id; repeatable.")
    ] = None,
    metric: Annotated[str, typer.Option("--metric", metavar="cosine|l2|ip", help="How they are compared.")] = "cosine",
    vector: Vector = "",
    served: Served = False,
    out: Out = None,
    html: Html = None,
    set_: Overrides = None,
) -> Page:
    """Compares some rows and texts, each with each."""
    path, named = config_and_words(words or [])
    config = configuration(path, set_)
    check_files(out, html, config)
    from pipelines.explore.similar import similar

    return page(similar(config, named, texts=text or (), metric=metric, vector=vector, served=served), out, html)


@explores
def map(
    config: "Config",
    by: Annotated[str, typer.Option("--by", metavar="pca|umap", help="How rows become points.")] = "pca",
    color: Annotated[str, typer.Option("--color", metavar="FIELD", help="Colours the points by a field.")] = "",
    sample: Annotated[int, typer.Option("--sample", min=1, help="Most rows to show; of more, a sample is drawn.")] = (
        MOST_POINTS
    ),
    **rows: Any,
) -> "Finding":
    """Shows the rows as points of a plane."""
    from pipelines.explore.map import map_rows

    return map_rows(config, by=by, color=color, sample=sample, **rows)


@explores
def labels(
    config: "Config",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME[=TEXT]", help="A label, and the text that describes it; repeatable."),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option("--examples", metavar="FILE", help="JSON lines of id or text, and label.")
    ] = None,
    template: Annotated[
        str, typer.Option("--template", metavar="TEXT", help="The text of a label, with {} where its name goes.")
    ] = "",
    truth: Annotated[
        str, typer.Option("--truth", metavar="FIELD", help="A field with the right label: shows the accuracy.")
    ] = "",
    **rows: Any,
) -> "Finding":
    """Gives each row a label, by texts of labels or by examples."""
    from pipelines.explore.labels import labels

    return labels(config, label or (), examples=examples, template=template, truth=truth, **rows)


@explores
def drift(
    config: "Config",
    context: typer.Context,
    since: Annotated[
        str,
        typer.Option("--since", metavar="DATE|SNAPSHOT", help="Compares what is new since then with the rest."),
    ] = "",
    against: Annotated[
        Path | None, typer.Option("--against", metavar="CONFIG", help="Compares the neighbours of items in two spaces.")
    ] = None,
    level: Annotated[
        float, typer.Option("--level", help="The p-value up to which the corpus counts as drifted.")
    ] = 0.01,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of an item, with --against.")] = 10,
    **rows: Any,
) -> "Finding":
    """Tells whether new rows are unlike the earlier ones."""
    from pipelines.explore.drift import drift

    refuse_given(context, *((["level"], "it is for --since") if against else (["k"], "it is for --against")))
    other = configuration(against, None) if against is not None else None
    return drift(config, since=since, against=other, level=level, k=k, **rows)
