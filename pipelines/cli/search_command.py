"""`vecbeam search` of the command line: its options, and its result as text and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.run.terminal.arguments import config_and_query, configuration
from pipelines.run.terminal.command import Overrides, Page, command

if TYPE_CHECKING:
    from pipelines.steps.search.queries.query import PreferenceQuery

searching = typer.Typer(rich_markup_mode=None)


@command(searching)
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [QUERY]",
            help="The query, unless an option names one; before it the configuration, if it is not ./vecbeam.yaml.",
        ),
    ] = None,
    image: Annotated[str, typer.Option("--image", metavar="FILE", help="Searches for an image.")] = "",
    audio: Annotated[str, typer.Option("--audio", metavar="FILE", help="Searches for a recording.")] = "",
    video: Annotated[
        str, typer.Option("--video", metavar="FILE", help="Searches for a film, the whole of it as one segment.")
    ] = "",
    like: Annotated[
        list[str] | None,
        typer.Option("--like", metavar="ID", help="Searches for rows that are like a row or an item; repeatable."),
    ] = None,
    not_like: Annotated[
        list[str] | None,
        typer.Option("--not-like", metavar="ID", help="And unlike another row or item; repeatable."),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option("--history", metavar="FILE", help="What was liked: JSON lines or CSV with id, weight, time."),
    ] = None,
    half_life: Annotated[
        float | None,
        typer.Option("--half-life", metavar="DAYS", help="Older entries of --history count half after each such time."),
    ] = None,
    hide_seen: Annotated[
        bool, typer.Option("--hide-seen", help="Leaves out the items of --like, --not-like and --history.")
    ] = False,
    k: Annotated[int, typer.Option("-k", min=1, max=16384, help="How many rows to return.")] = 10,
    by: Annotated[str, typer.Option("--by", help="row, or item: the best row of each item.")] = "row",
    filter_: Annotated[str, typer.Option("--filter", help="Milvus expression over the columns.")] = "",
    vector: Annotated[
        list[str] | None,
        typer.Option("--vector", metavar="NAME", help="The vector to search, by default the first one; repeatable."),
    ] = None,
    rerank: Annotated[
        str, typer.Option("--rerank", metavar="NAME", help="Ranks the rows found by their vectors of tokens.")
    ] = "",
    candidates: Annotated[
        int | None, typer.Option("--candidates", min=1, max=16384, help="How many rows --rerank ranks; 100 by default.")
    ] = None,
    plus: Annotated[
        list[str] | None, typer.Option("--plus", metavar="TEXT", help="Adds the vector of a text; repeatable.")
    ] = None,
    minus: Annotated[
        list[str] | None, typer.Option("--minus", metavar="TEXT", help="Subtracts the vector of a text; repeatable.")
    ] = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance",
            help="Shows of pairs of the corpus's rows (a sample) how many percent are less similar than query and row.",
        ),
    ] = False,
    answer: Annotated[
        bool, typer.Option("--answer", help="Shows of each row the sentence that is nearest to the query.")
    ] = False,
    fuzzy: Annotated[
        bool, typer.Option("--fuzzy", help="Also finds ids and texts with similar words, for typing errors.")
    ] = False,
    set_: Overrides = None,
) -> Page:
    """Searches the served collection."""
    from pipelines.steps.search.queries.query import from_options

    preference = _preference(like or (), not_like or (), history, half_life, hide_seen=hide_seen)
    option, named = from_options(preference, image=image, audio=audio, video=video)
    path, words_of_query = config_and_query(words or [], option)
    query = words_of_query if named is None else named

    from pipelines.search import find, show

    found = find(
        configuration(path, set_),
        query,
        k=k,
        filter_expression=filter_,
        vector=vector or (),
        plus=plus or (),
        minus=minus or (),
        rerank=rerank,
        candidates=candidates,
        importance=importance,
        by=by,
        answer=answer,
        fuzzy=fuzzy,
    )
    terms = {"plus": plus, "minus": minus, "like": like if preference == query else None, "not_like": not_like}
    given = {name: words for name, words in terms.items() if words}
    return Page({"query": str(query), **given, "metric": found.metric, "hits": found.hits[0]}, lambda: show(found))


def _preference(
    like: Sequence[str], not_like: Sequence[str], history: Path | None, half_life: float | None, *, hide_seen: bool
) -> "PreferenceQuery | None":
    """What --like, --not-like and --history name, or None.

    Raises:
        ConfigurationError: for an option that needs another one, or a history that is not valid.
    """
    from pipelines.steps.search.queries.history_file import read_history
    from pipelines.steps.search.queries.query import PreferenceQuery
    from schemas.errors import ConfigurationError

    if half_life is not None and history is None:
        raise ConfigurationError("--half-life goes with --history", "name the file of a history, or leave it out")
    if not (like or history):
        if not_like or hide_seen:
            option = "--not-like" if not_like else "--hide-seen"
            raise ConfigurationError(f"{option} goes with --like or --history", "name what is liked")
        return None
    seen = read_history(history, half_life) if history is not None else ()
    return PreferenceQuery(tuple(like), tuple(not_like), seen, hide_seen)
