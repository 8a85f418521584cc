"""The command line. Standard output is the result, standard error is progress; heavy imports wait for a command."""

from __future__ import annotations

import gc as garbage
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.guarding import guarded, reporting

if TYPE_CHECKING:
    from schemas.config import Config
    from schemas.report import Report

app = typer.Typer(
    name="vecbeam",
    help="Keeps Milvus collections in step with corpora in object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration, a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the configuration.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Prints one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Shows tracebacks and library logs.")]
AllowDeletes = Annotated[bool, typer.Option("--allow-deletes", help="Lifts corpus.max_deleted for this run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Shows no progress.")]


@app.callback()
def _root() -> None:
    pass


@app.command()
def init(
    paths: Annotated[list[str], typer.Argument(metavar="PATHS", help="Files, folders or globs of a corpus.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = Path("vecbeam.yaml"),
    name: Annotated[str | None, typer.Option(help="Name of the collection's alias; else from the path.")] = None,
    debug: Debug = False,
) -> None:
    """Looks at a corpus and writes a configuration that runs."""

    def run() -> None:
        from pipelines.init import write_configuration

        print(write_configuration(paths, output, name))

    guarded(run, debug=debug)


@app.command()
def plan(
    config: ConfigPath,
    set_: Overrides = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exits with 10 where there is work.")] = False,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What a run would do: items, tokens, time, cost, and what changes in Milvus. It writes nothing."""

    def run() -> bool:
        from pipelines.plan import plan, text
        from pipelines.progress import Progress
        from schemas.settings import load_config

        found = plan(load_config(config, set_ or ()), Progress(quiet=quiet), allow_deletes=allow_deletes)
        print(json.dumps(found.as_json()) if as_json else text(found))
        return found.has_work

    if guarded(run, debug=debug) and exit_code:
        raise typer.Exit(10)


@app.command()
def backfill(
    config: ConfigPath,
    set_: Overrides = None,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Everything from corpus to published collection; takes up where an earlier run stopped."""

    def run(settings: Config) -> Report:
        from pipelines.backfill import backfill
        from pipelines.progress import Progress

        return backfill(settings, Progress(quiet=quiet), allow_deletes=allow_deletes)

    reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def sync(
    config: ConfigPath,
    set_: Overrides = None,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Only what changed since the last run, deletions included, in the served collection."""

    def run(settings: Config) -> Report:
        from pipelines.progress import Progress
        from pipelines.sync import sync

        return sync(settings, Progress(quiet=quiet), allow_deletes=allow_deletes)

    reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def reindex(
    config: ConfigPath,
    set_: Overrides = None,
    anew: Annotated[bool, typer.Option("--anew", help="Embeds everything again: for another precision.")] = False,
    allow_deletes: AllowDeletes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Another collection beside the served one, for another model, index, chunking or fields; then the alias."""

    def run(settings: Config) -> Report:
        from pipelines.progress import Progress
        from pipelines.reindex import reindex

        return reindex(settings, Progress(quiet=quiet), allow_deletes=allow_deletes, anew=anew)

    reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def replay(
    config: ConfigPath, set_: Overrides = None, as_json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Rejects again, after their cause was mended."""

    def run(settings: Config) -> Report:
        from pipelines.progress import Progress
        from pipelines.replay import replay

        return replay(settings, Progress(quiet=quiet))

    reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def rollback(
    config: ConfigPath,
    to: Annotated[str | None, typer.Option("--to", metavar="COLLECTION", help="Another one than the last.")] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The alias back to the collection before."""

    def run(settings: Config) -> Report:
        from pipelines.progress import Progress
        from pipelines.rollback import rollback

        return rollback(settings, Progress(quiet=quiet), to=to)

    reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def gc(
    config: ConfigPath,
    keep: Annotated[int, typer.Option("--keep", min=0, help="Collections before the served one that stay.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Removes what is listed.")] = False,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Lists collections and files that nothing refers to; removes them with --yes."""

    def run() -> None:
        from pipelines.gc import gc, text
        from pipelines.progress import Progress
        from schemas.settings import load_config

        found = gc(load_config(config, set_ or ()), Progress(quiet=True), keep=keep, yes=yes)
        print(json.dumps(found.as_json()) if as_json else text(found))

    guarded(run, debug=debug)


@app.command()
def load(
    config: ConfigPath, set_: Overrides = None, as_json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Checkpoint to published collection, without an encoder."""

    def run(settings: Config) -> Report:
        from pipelines.load import load
        from pipelines.progress import Progress

        return load(settings, Progress(quiet=quiet))

    reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def verify(
    config: ConfigPath,
    set_: Overrides = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mends rows that differ, from the checkpoint.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Holds the served collection against the checkpoint row by row, and measures recall."""

    def run(settings: Config) -> Report:
        from pipelines.progress import Progress
        from pipelines.verify import verify

        return verify(settings, Progress(quiet=quiet), repair=repair)

    reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def search(
    config: ConfigPath,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=16384, help="How many rows.")] = 10,
    filter_: Annotated[str, typer.Option("--filter", help="Milvus expression over the columns.")] = "",
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Searches the served collection."""

    def run() -> None:
        from pipelines.search import search, show
        from schemas.settings import load_config

        hits = search(load_config(config, set_ or ()), query, k=k, filter_expression=filter_)
        if as_json:
            print(json.dumps({"query": query, "hits": hits}, ensure_ascii=False))
        else:
            show(hits)

    guarded(run, debug=debug)


@app.command()
def report(
    config: ConfigPath,
    run_id: Annotated[str | None, typer.Argument(help="A run; without it the last one that could change data.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Lists the runs, newest first.")] = False,
    rejects: Annotated[bool, typer.Option("--rejects", help="Names the run's rejects.")] = False,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Shows what a run did, or lists the runs."""

    def run() -> None:
        from pipelines import report as page
        from schemas.settings import load_config

        settings = load_config(config, set_ or ())
        if list_:
            runs = page.latest(settings)
            print(json.dumps(page.list_json(*runs)) if as_json else page.list_text(*runs))
            return
        found = page.read_report(settings, run_id)
        if rejects:
            print(json.dumps(page.rejects_json(found)) if as_json else page.rejects_text(found))
        else:
            print(json.dumps(found.as_json()) if as_json else page.text(found))

    guarded(run, debug=debug)


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


def main() -> None:
    """Entry point of the `vecbeam` command."""
    # Imports leave half a million objects for good, which the collector would look through again and again: half a
    # second while they come, and another at the end.
    garbage.set_threshold(50_000, 20, 50)
    try:
        app()
    finally:
        garbage.freeze()


if __name__ == "__main__":
    main()
