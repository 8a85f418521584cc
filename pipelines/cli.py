"""The command line. Standard output is the result, standard error is progress; heavy imports wait for a command."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.run.terminal import environment, output
from pipelines.run.terminal.guard import Commands, configuration, guarded, reporting

if TYPE_CHECKING:
    from schemas.config import Config
    from schemas.run_report import Report

app = typer.Typer(
    name="vecbeam",
    help="Keeps Milvus collections in step with corpora in object storage.",
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

CONFIGURATION = Path("vecbeam.yaml")
ENVIRONMENT = "VECBEAM_CONFIG"

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", envvar=ENVIRONMENT, help="The configuration, a YAML file.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the configuration.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Prints one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Shows tracebacks and library logs.")]
AllowDeletes = Annotated[bool, typer.Option("--allow-deletes", help="Lifts corpus.max_deleted for this run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Prints one line: the result.")]


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


@app.command()
def init(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS", help="Files, folders or globs of a corpus.")],
    where: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = CONFIGURATION,
    name: Annotated[str | None, typer.Option(help="Name of the collection's alias; else from the path.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Looks at a corpus and writes a configuration that runs."""

    def run() -> None:
        from pipelines.init import write_configuration

        found = write_configuration(paths, where, name)
        if as_json:
            output.result_as_json(found.as_json())
        else:
            output.result(str(found))

    guarded(run, as_json=as_json, debug=debug)


@app.command()
def plan(
    config: ConfigPath = CONFIGURATION,
    set_: Overrides = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exits with 10 where there is work.")] = False,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What a run would do: items, tokens, time, cost, and what changes in Milvus. It writes nothing."""

    def run() -> bool:
        from pipelines.plan import line, plan, text
        from pipelines.run.progress import Progress

        words = [str(config), *(word for value in set_ or () for word in ("--set", value))]
        found = plan(configuration(config, set_), Progress(quiet=quiet), allow_deletes=allow_deletes, words=words)
        if as_json:
            output.result_as_json(found.as_json(), exit_code=10 if exit_code and found.has_work else 0)
        else:
            output.result(line(found) if quiet else text(found))
        return found.has_work

    if guarded(run, as_json=as_json, quiet=quiet, debug=debug) and exit_code:
        raise typer.Exit(10)


@app.command()
def backfill(
    config: ConfigPath = CONFIGURATION,
    set_: Overrides = None,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Everything from corpus to published collection; goes on where an earlier run stopped."""

    def run(settings: Config) -> Report:
        from pipelines.backfill import backfill
        from pipelines.run.progress import Progress

        return backfill(settings, Progress(quiet=quiet), allow_deletes=allow_deletes)

    reporting(run, config, set_, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def sync(
    config: ConfigPath = CONFIGURATION,
    set_: Overrides = None,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Only what changed since the last run, deletions included, in the served collection."""

    def run(settings: Config) -> Report:
        from pipelines.run.progress import Progress
        from pipelines.sync import sync

        return sync(settings, Progress(quiet=quiet), allow_deletes=allow_deletes)

    reporting(run, config, set_, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def reindex(
    config: ConfigPath = CONFIGURATION,
    set_: Overrides = None,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Embeds everything again: for another precision.")
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", hidden=True, help="The earlier name of --full-refresh.")] = False,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Another collection beside the served one, for another model, index, chunking or fields; then the alias."""

    def run(settings: Config) -> Report:
        from pipelines.reindex import reindex
        from pipelines.run.progress import Progress

        return reindex(settings, Progress(quiet=quiet), allow_deletes=allow_deletes, anew=anew or full_refresh)

    reporting(run, config, set_, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def replay(
    config: ConfigPath = CONFIGURATION,
    set_: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Rejects again, after their cause was fixed."""

    def run(settings: Config) -> Report:
        from pipelines.replay import replay
        from pipelines.run.progress import Progress

        return replay(settings, Progress(quiet=quiet))

    reporting(run, config, set_, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def rollback(
    config: ConfigPath = CONFIGURATION,
    to: Annotated[str | None, typer.Option("--to", metavar="COLLECTION", help="Another one than the last.")] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The alias back to the collection before."""

    def run(settings: Config) -> Report:
        from pipelines.rollback import rollback
        from pipelines.run.progress import Progress

        return rollback(settings, Progress(quiet=quiet), to=to)

    reporting(run, config, set_, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def gc(
    config: ConfigPath = CONFIGURATION,
    keep: Annotated[int, typer.Option("--keep", min=0, help="Collections before the served one that stay.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Removes what is listed.")] = False,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Lists collections and files that nothing refers to; removes them with --yes."""

    def run() -> None:
        from pipelines.gc import gc, text
        from pipelines.run.progress import Progress

        found = gc(configuration(config, set_), Progress(quiet=True), keep=keep, yes=yes)
        _show(found.as_json(), text(found), as_json)

    guarded(run, as_json=as_json, debug=debug)


@app.command()
def load(
    config: ConfigPath = CONFIGURATION,
    set_: Overrides = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Makes another collection beside the served one, whatever that holds.")
    ] = False,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Checkpoint to published collection, without an encoder."""

    def run(settings: Config) -> Report:
        from pipelines.load import load
        from pipelines.run.progress import Progress

        return load(settings, Progress(quiet=quiet), allow_deletes=allow_deletes, rebuild=rebuild)

    reporting(run, config, set_, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def verify(
    config: ConfigPath = CONFIGURATION,
    set_: Overrides = None,
    repair: Annotated[bool, typer.Option("--repair", help="Restores rows that differ, from the checkpoint.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Compares ids and content hashes alone.")] = False,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compares the served collection with the checkpoint, all columns of all rows, and measures recall."""

    def run(settings: Config) -> Report:
        from pipelines.run.progress import Progress
        from pipelines.verify import verify

        return verify(settings, Progress(quiet=quiet), repair=repair, allow_deletes=allow_deletes, quick=quick)

    reporting(run, config, set_, as_json=as_json, quiet=quiet, debug=debug)


@app.command()
def search(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] QUERY", help="What to look for; before it the configuration, if not ./vecbeam.yaml."
        ),
    ],
    k: Annotated[int, typer.Option("-k", min=1, max=16384, help="How many rows.")] = 10,
    filter_: Annotated[str, typer.Option("--filter", help="Milvus expression over the columns.")] = "",
    vector: Annotated[str, typer.Option("--vector", help="Which vector of the rows; the first one without it.")] = "",
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Searches the served collection."""

    def run() -> None:
        config, query = _config_and_query(words)

        from pipelines.search import find, show

        found = find(configuration(config, set_), query, k=k, filter_expression=filter_, vector=vector)
        if as_json:
            output.result_as_json({"query": query, "metric": found.metric, "hits": found.hits[0]})
        else:
            show(found)

    guarded(run, as_json=as_json, debug=debug)


def _default_configuration() -> Path:
    return Path(environment.given().get(ENVIRONMENT) or CONFIGURATION)


def _is_configuration(word: str) -> bool:
    return word.lower().endswith((".yaml", ".yml"))


def _config_and_query(words: list[str]) -> tuple[Path, str]:
    """One word is the query; of two the first is the configuration.

    Raises:
        ConfigurationError: for another number of words, a query that is missing, or one that is not UTF-8.
    """
    from schemas.errors import ConfigurationError

    if len(words) > 2:
        raise ConfigurationError(
            f"{len(words)} words where CONFIG and QUERY are expected",
            'put the query in quotes: vecbeam search "two words"',
        )
    query = words[-1]
    if len(words) == 1 and _is_configuration(query):
        raise ConfigurationError(
            f"{query} is a configuration, and there is no query", f'write: vecbeam search {query} "what to look for"'
        )
    try:
        query.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"the query {output.clean(query)} is not valid UTF-8", "type it in a terminal whose encoding is UTF-8"
        ) from None
    return (Path(words[0]) if len(words) == 2 else _default_configuration()), query


@app.command()
def report(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG RUN",
            help="The configuration, which ends in .yaml or .yml, if not ./vecbeam.yaml; a run, if not the last that "
            "could change data.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Lists the runs, newest first.")] = False,
    rejects: Annotated[bool, typer.Option("--rejects", help="Names the run's rejects.")] = False,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Shows what a run did, or lists the runs."""

    def run() -> None:
        config, run_id = _config_and_run(words or [])

        from pipelines import report as page
        from pipelines.run import report_store, report_text

        settings = configuration(config, set_)
        if list_:
            runs = report_store.latest(settings)
            _show(page.list_json(*runs), page.list_text(*runs), as_json)
            return
        found = report_store.read_report(settings, run_id)
        if rejects:
            _show(page.rejects_json(found), page.rejects_text(found), as_json)
        else:
            _show(found.as_json(), report_text.text(found), as_json)

    guarded(run, as_json=as_json, debug=debug)


def _show(values: Mapping[str, Any], page: str, as_json: bool) -> None:
    if as_json:
        output.result_as_json(values)
    else:
        output.result(page)


def _config_and_run(words: list[str]) -> tuple[Path, str | None]:
    """The configuration is what ends in .yaml or .yml, or the first of two words."""
    from schemas.errors import ConfigurationError

    if len(words) > 2:
        raise ConfigurationError(f"{len(words)} words where CONFIG and RUN are expected", "name one run")
    if len(words) == 2:
        return Path(words[0]), words[1]
    if words and not _is_configuration(words[0]):
        return _default_configuration(), words[0]
    return (Path(words[0]) if words else _default_configuration()), None


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where corpus, configuration and results go.")] = Path("demo"),
    debug: Debug = False,
) -> None:
    """The tour: this Python's own documentation, embedded, published and searched."""

    def run() -> None:
        from pipelines.demo import demo

        demo(folder)

    guarded(run, debug=debug)
