"""`vecbeam search CONFIG QUERY`: a text, a media file or a row to the nearest rows of the served collection."""

from __future__ import annotations

from typing import Any, Unpack

from pipelines.steps.search.hits.answers import NAME as ANSWER
from pipelines.steps.search.hits.found import Found
from pipelines.steps.search.hits.importance import NAME as IMPORTANCE
from pipelines.steps.search.queries.query import Query
from pipelines.steps.search.search_options import SearchKeywords, SearchOptions
from pipelines.steps.search.searcher import Searcher
from schemas.config import Config

SHOWN_CHARACTERS = 160


def search(
    config: Config,
    query: Query,
    *,
    k: int = 10,
    filter_expression: str = "",
    **options: Unpack[SearchKeywords],
) -> list[dict[str, Any]]:
    """The `k` rows nearest to a query, best first.

    Args:
        query: a text, a media file, or a row; see `pipelines.steps.search.queries.query`.
        config: whose encoder embeds the query and whose alias is searched.
        options: see `SearchOptions`.

    Returns:
        One dict per row: score, id, item_id, chunk, text (uri of media), start, end, and the metadata columns. With
        COSINE, IP and BM25 a larger score is nearer, with L2 a smaller one. BM25 finds only rows that have a word of
        the query.

    Raises:
        ConfigurationError: if the query is blank, or Milvus does not understand the filter.
        CollectionError: if nothing is published, or Milvus does not answer.
        SpaceMismatchError: if the collection holds vectors of another space than the configuration's encoder.
    """
    return find(config, query, k=k, filter_expression=filter_expression, **options).hits[0]


def find(
    config: Config,
    query: Query,
    *,
    k: int = 10,
    filter_expression: str = "",
    **options: Unpack[SearchKeywords],
) -> Found:
    """`search`, with the metric of its scores."""
    searcher = Searcher(config)
    try:
        return searcher.search([query], k, SearchOptions(filter_expression, **options))
    finally:
        searcher.close()


def show(found: Found) -> None:
    """Prints the hits of the first query as a table on standard output."""
    from rich.table import Table
    from rich.text import Text

    from pipelines.run.terminal import output

    hits = found.hits[0]
    table = Table(box=None, pad_edge=False)
    table.add_column("L2 distance" if found.metric == "L2" else "score", justify="right", no_wrap=True)
    has_importance = bool(hits) and IMPORTANCE in hits[0]
    if has_importance:
        table.add_column(IMPORTANCE, justify="right", no_wrap=True)
    table.add_column("id", overflow="fold", max_width=48)
    shown = [name for name in ("text", "uri") if not hits or name in hits[0]]
    has_answers = any(hit.get(ANSWER) for hit in hits)
    table.add_column(ANSWER if has_answers else " or ".join(shown) if hits else "text")
    for hit in hits:
        answer = hit.get(ANSWER) or {}
        text = output.clean_line(str(answer.get("text") or hit.get("text") or hit["uri"]))
        cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
        percent = [f"{hit[IMPORTANCE]:.0f} %"] if has_importance else []
        table.add_row(f"{hit['score']:.4f}", *percent, Text(output.clean(str(hit["id"]))), Text(cut))
    if not hits:
        output.result("nothing found")
        return
    console = output.console(1)
    with console.capture() as capture:
        console.print(table)
    output.result(capture.get().rstrip("\n"), styled=True)
