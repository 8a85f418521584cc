"""`vecbeam search CONFIG QUERY`: text to the nearest rows of the served collection."""

from __future__ import annotations

from typing import Any

from pipelines.serving import check_space, open_for_search, served_state
from schemas.config import Config
from transforms import collection as milvus
from transforms.encoders import Encoder, resolve

SHOWN_CHARACTERS = 160


def search(config: Config, query: str, *, k: int = 10, filter_expression: str = "") -> list[dict[str, Any]]:
    """The `k` rows nearest to a text, best first.

    Args:
        config: whose encoder embeds the query and whose alias is searched.
        filter_expression: Milvus expression over the columns, e.g. 'author == "ting-yili"'.

    Returns:
        A dict a row: score, id, item_id, chunk, text, start, end, and the metadata columns.

    Raises:
        CollectionError: where nothing is published, or Milvus is not there.
        SpaceMismatchError: where the collection holds vectors of another space than the configuration's encoder.
    """
    model = resolve(config.encoder)
    with milvus.connected(config.collection) as client:
        state = served_state(client, config)
        check_space(state, config, model.space)
        open_for_search(client, config, state.name)
        vector = query_encoder(config).encode([query], query=True).vectors[0]
        columns = ["id", "item_id", "chunk", "text", "start", "end", *config.corpus.metadata]
        hits = milvus.search(
            client,
            config.collection,
            state.name,
            vector,
            k,
            filter_expression,
            [name for name in columns if name in {column.name for column in state.columns}],
            config.collection.search,
            config.collection.index.type,
        )
    return [{"score": round(hit.score, 6), **{name: hit.fields.get(name) for name in columns}} for hit in hits]


def query_encoder(config: Config) -> Encoder:
    """The encoder for queries: in float32 where the corpus is in int8, which would need its sample; queries are few."""
    encoder = config.encoder
    return resolve(
        encoder.model_copy(update={"precision": "float32"}) if encoder.precision == "int8" else encoder
    ).load()


def show(hits: list[dict[str, Any]]) -> None:
    """Prints hits as a table on standard output."""
    from rich.table import Table
    from rich.text import Text

    from pipelines import output

    table = Table(box=None, pad_edge=False)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("id", overflow="fold", max_width=48)
    table.add_column("text")
    for hit in hits:
        text = output.clean_line(str(hit["text"]))
        cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
        table.add_row(f"{hit['score']:.4f}", Text(output.clean(str(hit["id"]))), Text(cut))
    if not hits:
        output.result("nothing found")
        return
    console = output.console(1)
    with console.capture() as capture:
        console.print(table)
    output.result(capture.get().rstrip("\n"), styled=True)
