"""The commands of `vecbeam explore`; see `pipelines.cli`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.run.terminal.command import Page, command

if TYPE_CHECKING:
    from pipelines.steps.results.finding import Finding
    from schemas.config import Config

explore = typer.Typer(help="Shows what the vectors of the corpus tell.", no_args_is_help=True, rich_markup_mode=None)

MOST_ROWS = 200_000
Vector = Annotated[str, typer.Option("--vector", metavar="NAME", help="The vector, by default the first dense one.")]
Rows = Annotated[int, typer.Option("--sample", min=1, help="Most rows to look at; of more, a sample is drawn.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="By which a sample is drawn.")]
Served = Annotated[bool, typer.Option("--served", help="Looks at the rows that are served, not at the newest ones.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Writes all rows to a .parquet, .jsonl or .csv file.")
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Writes a page that needs no network.")]


@command(explore)
def duplicates(
    config: "Config",
    above: Annotated[float, typer.Option("--above", help="Least cosine of near duplicates.")] = 0.95,
    by: Annotated[str, typer.Option("--by", metavar="row|item", help="What is compared.")] = "row",
    keep: Annotated[
        str, typer.Option("--keep", metavar="first|last", help="Which one of a group is marked to be kept.")
    ] = "first",
    vector: Vector = "",
    sample: Rows = MOST_ROWS,
    seed: Seed = 0,
    served: Served = False,
    out: Out = None,
    html: Html = None,
) -> Page:
    """Finds rows, or items, that are nearly the same."""
    check_files(out, html)
    from pipelines.explore.duplicates import duplicates

    return page(
        duplicates(config, above=above, by=by, keep=keep, vector=vector, sample=sample, seed=seed, served=served),
        out,
        html,
    )


@command(explore)
def outliers(
    config: "Config",
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
    vector: Vector = "",
    sample: Rows = MOST_ROWS,
    seed: Seed = 0,
    served: Served = False,
    out: Out = None,
    html: Html = None,
) -> Page:
    """Finds rows that are unusually far from all others."""
    check_files(out, html)
    from pipelines.explore.outliers import outliers

    found = outliers(
        config, k=k, by=by, above=above, group=group, new=new, vector=vector, sample=sample, seed=seed, served=served
    )
    return page(found, out, html)


@command(explore)
def clusters(
    config: "Config",
    n: Annotated[int | None, typer.Option("-n", min=2, help="How many; by default chosen by silhouette.")] = None,
    field: Annotated[str, typer.Option("--field", help="Compares the clusters with the values of a field.")] = "",
    vector: Vector = "",
    sample: Rows = MOST_ROWS,
    seed: Seed = 0,
    served: Served = False,
    out: Out = None,
    html: Html = None,
) -> Page:
    """Groups similar rows, and names the groups."""
    check_files(out, html)
    from pipelines.explore.clusters import clusters

    found = clusters(config, n=n, field=field, vector=vector, sample=sample, seed=seed, served=served)
    return page(found, out, html)


def check_files(out: Path | None, html: Path | None) -> None:
    """Raises unless the files can be written, before anything is computed."""
    from pipelines.steps.results.page_file import check_page_file
    from pipelines.steps.results.table_file import check_table_file

    check_table_file(out)
    check_page_file(html)


def page(found: "Finding", out: Path | None, html: Path | None) -> Page:
    """The finding as the result of a command, after its files were written."""
    found.written(out, html)
    return Page(found.as_json(), found.text(), exit_code=found.exit_code)
