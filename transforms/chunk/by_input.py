"""Items of which vectors describe different inputs to chunks: one each, with all of its inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.config import Config
from schemas.identity import content_hash
from schemas.item_inputs import ChunkInputs, Input, ItemContent, facts
from schemas.layout import INPUTS, LOCATOR, TOKEN_IDS, chunk_schema, item_facts, item_schema
from schemas.locator import shown_column
from schemas.milvus import VARCHAR_MAX_BYTES
from schemas.rejects import Reject, rejects_table
from transforms.chunk.base import Chunked, Chunker


class InputsChunker:
    """Gives each input of an item to its chunker, and makes one chunk of what these say.

    The text of a chunk has all fields of `corpus.content`, whatever is embedded of them. The content hash covers all
    inputs: a row whose title or whose photo changes is embedded again, with all its vectors.

    Args:
        config: of which `corpus` counts; it does not split items into chunks.
        chunkers: of each input that is embedded.
    """

    def __init__(self, config: Config, chunkers: Mapping[Input, Chunker]) -> None:
        self._chunkers = chunkers
        self._content = tuple(config.corpus.content)
        self._metadata = config.corpus.column_types
        self._schema = chunk_schema(self._metadata, config.corpus.modality, has_inputs=True)
        self._described = json.dumps(facts(config.inputs), sort_keys=True)

    def chunk(self, items: pa.Table) -> Chunked:
        """See `Chunker.chunk`. An item is rejected once, for the first of its inputs that can't be embedded."""
        contents = list(map(ItemContent.from_text, items.column("@content").to_pylist()))
        made: dict[Input, pa.Table] = {}
        rejects: dict[str, Reject] = {}
        for one, chunker in self._chunkers.items():
            made[one], refused = chunker.chunk(self._of_input(items, contents, one))
            for row in refused.to_pylist():
                rejects.setdefault(row["id"], Reject(**{**row, "reason": f"{one}: {row['reason']}"}))
        items, contents, made = _without(rejects, items, contents, made)
        texts = [content.text(self._content) for content in contents]
        dropped = self._sum(made, "tokens_dropped", items.num_rows)
        for row in np.flatnonzero([len(text.encode()) > VARCHAR_MAX_BYTES for text in texts]):
            if not dropped[row]:  # else it is over an encoder's limit as well, and counted there
                reject = self._too_long(items.slice(row, 1), len(texts[row].encode()))
                rejects.setdefault(str(reject.id), reject)
        items, contents, made = _without(rejects, items, contents, made)
        return Chunked(self._table(items, contents, made), rejects_table(rejects.values()))

    def _of_input(self, items: pa.Table, contents: Sequence[ItemContent], one: Input) -> pa.Table:
        """The items as the chunker of an input gets them from a corpus of this input alone."""
        texts = [content.text(one.fields) if one.is_text else content.media for content in contents]
        at = items.schema.get_field_index("@content")
        names = list(dict.fromkeys([*item_schema(self._metadata, one.modality).names, *item_facts().names]))
        return items.set_column(at, items.schema.field(at), pa.array(texts, pa.string())).select(names)

    def _table(self, items: pa.Table, contents: Sequence[ItemContent], made: Mapping[Input, pa.Table]) -> pa.Table:
        rows = items.num_rows
        first = next(iter(made.values()))
        texts = [
            content.text(self._content).encode()[:VARCHAR_MAX_BYTES].decode(errors="ignore") for content in contents
        ]
        columns: dict[str, Any] = {
            **{name: first.column(name) for name in ("id", "item_id")},
            "chunk": np.zeros(rows, np.int64),
            "text": texts,
            "start": np.zeros(rows, np.int64),
            "end": np.array([len(text) for text in texts], np.int64),
            "content_hash": [content_hash(f"{self._described}\n{content.as_text()}") for content in contents],
            **{name: self._sum(made, name, rows) for name in ("tokens", "tokens_dropped")},
            TOKEN_IDS: pa.nulls(rows, self._schema.field(TOKEN_IDS).type),
            INPUTS: [ChunkInputs(*row).as_text() for row in self._read(contents, made)],
            **{name: items.column(name) for name in (*self._metadata, *item_facts().names)},
        }
        if LOCATOR in self._schema.names:
            columns |= {
                "uri": shown_column(items.column("@uri"), items.column(LOCATOR)),
                "seconds_dropped": self._sum(made, "seconds_dropped", rows),
                LOCATOR: items.column(LOCATOR),
            }
        arrays = [
            one if isinstance(one, (pa.Array, pa.ChunkedArray)) else pa.array(one, field.type)
            for field, one in ((field, columns[field.name]) for field in self._schema)
        ]
        return pa.table(arrays, schema=self._schema)

    def _read(
        self, contents: Sequence[ItemContent], made: Mapping[Input, pa.Table]
    ) -> list[tuple[Mapping[str, str], float, float]]:
        """What `ChunkInputs` has of each item."""
        timed = next((chunks for one, chunks in made.items() if one.modality.is_timed), None)
        times = (
            [[0.0] * len(contents)] * 2 if timed is None else [timed.column(n).to_pylist() for n in ("start", "end")]
        )
        return [(content.texts, *span) for content, *span in zip(contents, *times, strict=True)]

    def _sum(self, made: Mapping[Input, pa.Table], name: str, rows: int) -> NDArray[Any]:
        """The sum of a column of all inputs that have it, as the schema has it."""
        kind = self._schema.field(name).type.to_pandas_dtype() if name in self._schema.names else np.int64
        found = [chunks.column(name).to_numpy() for chunks in made.values() if name in chunks.column_names]
        return np.sum(found, axis=0).astype(kind) if found else np.zeros(rows, kind)

    def _too_long(self, item: pa.Table, size: int) -> Reject:
        item_id, uri, place = (item.column(name)[0].as_py() for name in ("item_id", "@uri", "@place"))
        reason = (
            f"the text of {', '.join(self._content)} takes {size:,} bytes, and the column text of the collection holds "
            f"{VARCHAR_MAX_BYTES:,}; leave a field that no encoder embeds out of corpus.content"
        )
        return Reject(item_id, uri, place, "chunk", "TextTooLong", reason)


def _without(
    rejects: Mapping[str, Reject], items: pa.Table, contents: list[ItemContent], made: Mapping[Input, pa.Table]
) -> tuple[pa.Table, list[ItemContent], dict[Input, pa.Table]]:
    """Items, their contents and their chunks without those that are rejected."""
    gone = pa.array(sorted(rejects), pa.string())
    kept = pc.invert(pc.is_in(items.column("item_id"), gone))
    left = [content for content, stays in zip(contents, kept.to_pylist(), strict=True) if stays]
    tables = {one: chunks.filter(pc.invert(pc.is_in(chunks.column("item_id"), gone))) for one, chunks in made.items()}
    return items.filter(kept), left, tables
