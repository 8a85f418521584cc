"""The root of the command line, and the commands that run, report and serve.

Standard output is the result, standard error is progress; heavy imports wait for a command. Each command is a
function; `command` derives its options from the signature and adds the common ones. Annotations are evaluated, as the
options are read from them: types whose modules are heavy are in quotes.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.explore_commands import explore
from pipelines.cli.inspection_commands import inspection
from pipelines.cli.quality_commands import quality
from pipelines.cli.search_command import searching
from pipelines.cli.shared_options import Html
from pipelines.cli.train_command import training
from pipelines.run.terminal import output
from pipelines.run.terminal.arguments import CONFIGURATION, config_and_run, configuration
from pipelines.run.terminal.command import Overrides, Page, command
from pipelines.run.terminal.guard import Commands

if TYPE_CHECKING:
    from pipelines.run.progress import Progress
    from schemas.config import Config
    from schemas.run_report import Report

app = typer.Typer(
    name="vecbeam",
    help="Keeps Milvus collections in sync with corpora in object storage.",
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(explore, name="explore")
app.add_typer(quality)
app.add_typer(inspection)
app.add_typer(searching)
app.add_typer(training)

AllowDeletes = Annotated[bool, typer.Option("--allow-deletes", help="Lifts corpus.max_deleted for this run.")]

NoWait = Annotated[
    bool,
    typer.Option(
        "--no-wait",
        help="Starts the job on other machines, prints its id and ends; the same command continues later.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        with contextlib.suppress(BrokenPipeError):
            output.result(f"vecbeam {version('vecbeam')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Shows the version and exits.")
    ] = False,
) -> None:
    pass


@command(app)
def init(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS", help="Files, folders or globs of a corpus.")],
    where: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = CONFIGURATION,
    name: Annotated[str | None, typer.Option(help="Name of the collection's alias; by default from the path.")] = None,
) -> Page:
    """Looks at a corpus and writes a configuration that runs."""
    from pipelines.init import write_configuration

    found = write_configuration(paths, where, name)
    return Page(found.as_json(), str(found))


@command(app)
def plan(
    config: "Config",
    progress: "Progress",
    as_given: list[str],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exits with 10 if there is something to do.")] = False,
    allow_deletes: AllowDeletes = False,
    here: Annotated[
        bool, typer.Option("--here", help="Reads on this machine, however much it is: starts no job.")
    ] = False,
) -> Page:
    """Shows what a run would do and cost; writes nothing."""
    from pipelines.plan import plan
    from pipelines.run.plan_text import line, text

    found = plan(config, progress, allow_deletes=allow_deletes, here=here, words=as_given)
    code = 10 if exit_code and found.has_work else 0
    return Page(found.as_json(), text(found), line=line(found), exit_code=code)


@command(app)
def backfill(
    config: "Config", progress: "Progress", allow_deletes: AllowDeletes = False, no_wait: NoWait = False
) -> "Report":
    """Embeds the corpus and publishes it; resumes where a run stopped."""
    from pipelines.backfill import backfill

    return backfill(config, progress, allow_deletes=allow_deletes, wait=not no_wait)


@command(app)
def sync(
    config: "Config", progress: "Progress", allow_deletes: AllowDeletes = False, no_wait: NoWait = False
) -> "Report":
    """Updates the served collection with all changes and deletions."""
    from pipelines.sync import sync

    return sync(config, progress, allow_deletes=allow_deletes, wait=not no_wait)


@command(app)
def reindex(
    config: "Config",
    progress: "Progress",
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Embeds everything again, for another precision.")
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", hidden=True, help="The earlier name of --full-refresh.")] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="Fits the models again that are fitted on the corpus.")
    ] = False,
    allow_deletes: AllowDeletes = False,
    no_wait: NoWait = False,
) -> "Report":
    """Builds a collection for another model, index, chunks or fields."""
    from pipelines.reindex import reindex

    return reindex(
        config,
        progress,
        allow_deletes=allow_deletes,
        full_refresh=full_refresh or anew,
        refit=refit,
        wait=not no_wait,
    )


@command(app)
def replay(config: "Config", progress: "Progress", no_wait: NoWait = False) -> "Report":
    """Retries rejected items, after their cause was fixed."""
    from pipelines.replay import replay

    return replay(config, progress, wait=not no_wait)


@command(app)
def rollback(
    config: "Config",
    progress: "Progress",
    to: Annotated[str | None, typer.Option("--to", metavar="COLLECTION", help="By default the previous one.")] = None,
) -> "Report":
    """Moves the alias back to the previous collection."""
    from pipelines.rollback import rollback

    return rollback(config, progress, to=to)


@command(app)
def gc(
    config: "Config",
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many earlier collections to keep.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Removes what is listed.")] = False,
) -> Page:
    """Lists, and with --yes removes, what nothing refers to."""
    from pipelines.gc import gc, text
    from pipelines.run.progress import Progress

    found = gc(config, Progress(quiet=True), keep=keep, yes=yes)
    return Page(found.as_json(), text(found))


@command(app)
def load(
    config: "Config",
    progress: "Progress",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Builds a new collection from the checkpoint and moves the alias to it.")
    ] = False,
    allow_deletes: AllowDeletes = False,
    no_wait: NoWait = False,
) -> "Report":
    """Builds and publishes a collection from the checkpoint alone."""
    from pipelines.load import load

    return load(config, progress, allow_deletes=allow_deletes, rebuild=rebuild, wait=not no_wait)


@command(app)
def verify(
    config: "Config",
    progress: "Progress",
    repair: Annotated[bool, typer.Option("--repair", help="Restores rows that differ, from the checkpoint.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Compares only ids and content hashes.")] = False,
    allow_deletes: AllowDeletes = False,
) -> "Report":
    """Compares the collection with the checkpoint; measures recall."""
    from pipelines.verify import verify

    return verify(config, progress, repair=repair, allow_deletes=allow_deletes, quick=quick)


@command(app)
def report(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG RUN",
            help="The configuration, which ends in .yaml or .yml, by default ./vecbeam.yaml; and the run, by default "
            "the last that could change data.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Lists the runs, newest first.")] = False,
    rejects: Annotated[bool, typer.Option("--rejects", help="Lists the run's rejects.")] = False,
    html: Html = None,
    set_: Overrides = None,
) -> Page:
    """Shows what a run did, or lists the runs."""
    path, run_id = config_and_run(words or [])
    if list_ and (rejects or run_id):
        from schemas.errors import ConfigurationError

        other = "--rejects" if rejects else f"RUN {run_id}"
        raise ConfigurationError(f"--list and {other}: the list has all runs", "leave one of the two out")
    if html is not None and (list_ or rejects):
        from schemas.errors import ConfigurationError

        raise ConfigurationError(
            f"--html and --{'list' if list_ else 'rejects'}: the page has the runs and the rejects already",
            f"leave --{'list' if list_ else 'rejects'} out",
        )

    from pipelines import report as page
    from pipelines.run import report_store, report_text

    config = configuration(path, set_)
    if list_:
        runs = report_store.latest(config)
        return Page(page.list_json(*runs), page.list_text(*runs))
    found = page.report(config, run_id, html=html)
    if rejects:
        return Page(page.rejects_json(found), page.rejects_text(found))
    written = "" if html is None else f"\npage      {html}"
    return Page(found.as_json(), report_text.text(found) + written)


@command(app)
def serve(
    config: "Config",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes one that is free.")] = 8765,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    other: Annotated[
        Path | None, typer.Option("--other", metavar="CONFIG", help="Another collection, to compare with.")
    ] = None,
) -> None:
    """Serves a page to search the collection and to look at it."""
    from pipelines.serve import serve

    serve(config, port=port, host=host, other=other, ready=lambda address: output.result(f"serving {address}"))


@command(app)
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for corpus, configuration and results.")] = Path("demo"),
) -> None:
    """Runs a tour over the docstrings of Python's standard library."""
    from pipelines.demo import demo

    demo(folder)
