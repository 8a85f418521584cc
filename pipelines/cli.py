"""The command line. Standard output is the result, standard error is progress; heavy imports wait for a command."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

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

T = TypeVar("T")


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

    _guarded(run, debug=debug)


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

    if _guarded(run, debug=debug) and exit_code:
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

    _reporting(run, config, set_, as_json=as_json, debug=debug)


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

    _reporting(run, config, set_, as_json=as_json, debug=debug)


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

    _reporting(run, config, set_, as_json=as_json, debug=debug)


@app.command()
def replay(
    config: ConfigPath, set_: Overrides = None, as_json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Rejects again, after their cause was mended."""

    def run(settings: Config) -> Report:
        from pipelines.progress import Progress
        from pipelines.replay import replay

        return replay(settings, Progress(quiet=quiet))

    _reporting(run, config, set_, as_json=as_json, debug=debug)


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

    _reporting(run, config, set_, as_json=as_json, debug=debug)


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

    _guarded(run, debug=debug)


@app.command()
def load(
    config: ConfigPath, set_: Overrides = None, as_json: AsJson = False, quiet: Quiet = False, debug: Debug = False
) -> None:
    """Checkpoint to published collection, without an encoder."""

    def run(settings: Config) -> Report:
        from pipelines.load import load
        from pipelines.progress import Progress

        return load(settings, Progress(quiet=quiet))

    _reporting(run, config, set_, as_json=as_json, debug=debug)


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

    _reporting(run, config, set_, as_json=as_json, debug=debug)


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

    _guarded(run, debug=debug)


@app.command()
def report(
    config: ConfigPath,
    run_id: Annotated[str | None, typer.Argument(help="A run; the last one without it.")] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Shows what a run did."""

    def run() -> None:
        from pipelines.report import read_report, text
        from schemas.settings import load_config

        found = read_report(load_config(config, set_ or ()), run_id)
        print(json.dumps(found.as_json()) if as_json else text(found))

    _guarded(run, debug=debug)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where corpus, configuration and results go.")] = Path("demo"),
    debug: Debug = False,
) -> None:
    """The tour: this Python's own documentation, embedded, published and searched."""

    def run() -> None:
        from pipelines.demo import demo

        demo(folder)

    _guarded(run, debug=debug)


def _reporting(
    command: Callable[[Config], Report],
    config: Path,
    overrides: list[str] | None,
    *,
    as_json: bool,
    debug: bool,
) -> None:
    """Runs a command that ends in a report, and prints it whichever way it ends."""

    def show(found: Report) -> None:
        from pipelines.report import text

        print(json.dumps(found.as_json()) if as_json else text(found), flush=True)

    def run() -> None:
        from schemas.errors import ConfigurationError, VecbeamError
        from schemas.settings import load_config

        try:
            found = command(load_config(config, overrides or ()))
        except VecbeamError as error:
            if error.report is not None and error.exit_code != ConfigurationError.exit_code:
                show(error.report)
            raise
        show(found)

    _guarded(run, debug=debug)


def _guarded(run: Callable[[], T], *, debug: bool) -> T:
    """Runs a command; turns errors into one line on standard error and an exit code, Ctrl-C into a stop."""
    logging.basicConfig(level=logging.INFO if debug else logging.CRITICAL, stream=sys.stderr)
    logging.getLogger("vecbeam").setLevel(logging.INFO if debug else logging.WARNING)
    if not debug:
        _silence_libraries()
    from schemas.errors import VecbeamError

    signal.signal(signal.SIGINT, _Interrupts())
    try:
        return run()
    except VecbeamError as error:
        if debug:
            raise
        print(f"vecbeam: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        # The reader of our output went away (`| head`): what was asked for is done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        print("vecbeam: stopped; run the same command to continue", file=sys.stderr)
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            raise
        print(
            f"vecbeam: unexpected {type(error).__name__}: {_last_line(error)} (--debug shows the traceback; "
            "what is in the checkpoint is kept, and the same command continues)",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _silence_libraries() -> None:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("apache_beam", "pymilvus", "milvus_lite", "transformers", "sentence_transformers"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import warnings

    warnings.simplefilter("ignore")


class _Interrupts:
    """The first Ctrl-C stops after the batch at hand, the second one at once."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, *_: Any) -> None:
        self._count += 1
        if self._count > 1 or "transforms.stopping" not in sys.modules:
            print("vecbeam: stopped; run the same command to continue", file=sys.stderr)
            os._exit(1)
        from transforms import stopping

        print("vecbeam: stopping after the batch at hand; Ctrl-C again stops at once", file=sys.stderr)
        stopping.request_stop()


def main() -> None:
    """Entry point of the `vecbeam` command."""
    app()


if __name__ == "__main__":
    main()
