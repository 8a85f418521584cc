"""Existing vectors: the combined result is that of embedding everything again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from corpora import configure
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.layout import SOURCE_ROW, item_schema
from schemas.records import Key
from transforms.checkpoint import Checkpoint
from transforms.checkpoint.embedded import EmbeddedTable
from transforms.checkpoint.items import first_rows, live_items
from transforms.diff.digest import chunking_of
from transforms.embed.lazy_encoders import load_fillers
from transforms.embed.reuse import assemble, items_beside, with_source_rows
from transforms.embed.rows import Filler, embed_table, nothing_embedded
from transforms.embed.work import with_facts
from transforms.encoders.base import Encoded
from transforms.encoders.models import Models

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=25)
SENTENCES = [
    "ask bee cat dog.",
    "elk fox gnu hen.",
    "ibis jay kite lynx.",
    "mole newt owl pig.",
    "quail ram seal toad.",
]
FAILS = "zebra zebu zorilla."

old_text = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=5).map("\n\n".join)
new_text = st.lists(st.sampled_from([*SENTENCES, *SENTENCES, FAILS]), min_size=1, max_size=5).map("\n\n".join)


class Failing(NamedTuple):
    """An encoder that fails on some texts."""

    encoder: Any

    def encode(self, inputs: pa.Table, *, query: bool = False, advance: Callable[[int], None] | None = None) -> Encoded:
        if any("zebra" in text for text in inputs.column("text").to_pylist()):
            raise ValueError("zebra")
        found: Encoded = self.encoder.encode(inputs, query=query, advance=advance)
        return found

    def runtime(self) -> dict[str, str]:
        found: dict[str, str] = self.encoder.runtime()
        return found


class Stage:
    """What a worker has."""

    def __init__(self, folder: Path) -> None:
        config = configure(folder, chunk={"max_tokens": 8, "overlap_tokens": 0})
        models = Models.of(config)
        self.layout = models.layout
        self.checkpoint = Checkpoint(str(folder / "checkpoint"), "tested", self.layout.space.id)
        self.fillers: list[Filler] = [
            filler._replace(encoder=Failing(filler.encoder))
            for filler in load_fillers(dict(models.by_name), models.layout, models.cutting, ())
        ]
        self._chunker = models.chunker(config)
        self._chunking = chunking_of(config)
        self._parts = 0

    def chunks(self, items: list[tuple[str, str]], sources: list[tuple[int, int]] | None = None) -> pa.Table:
        ids, texts = zip(*items, strict=True)
        table = pa.table(
            {"item_id": ids, "@uri": ["u"] * len(ids), "@place": [""] * len(ids), "@content": texts},
            schema=item_schema({}),
        )
        table = with_facts(table, self._chunking)
        if sources is not None:
            for name, values in zip(("@source", "@source_item"), zip(*sources, strict=True), strict=True):
                at = table.schema.get_field_index(name)
                table = table.set_column(at, table.schema.field(at), pa.array(values, pa.int32()))
        chunks, rejects = self._chunker.chunk(table)
        assert rejects.num_rows == 0
        return chunks

    def write(self, items: list[tuple[str, str]]) -> str:
        chunks = self.chunks(items)
        batch = embed_table(chunks, self.fillers, self.layout)
        self._parts += 1
        name = f"part-{self._parts}.parquet"
        self.checkpoint.write_part(Key("docs", 0), name, batch, items_beside(batch.rows, chunks))
        return name


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("reuse"))


@st.composite
def changes(draw: st.DrawFn) -> tuple[list[list[str]], list[tuple[str, tuple[int, int]]]]:
    """Texts of the items of two parts, and new texts, each with the item that it comes from."""
    old = draw(st.lists(st.lists(old_text, min_size=1, max_size=3), min_size=2, max_size=2))
    places = [(-1, -1), *((part, item) for part, texts in enumerate(old) for item in range(len(texts)))]
    new = draw(st.lists(st.tuples(new_text, st.sampled_from(places)), min_size=1, max_size=5))
    same = [(text, (part, item)) for part, texts in enumerate(old) for item, text in enumerate(texts)]
    return old, new + draw(st.lists(st.sampled_from(same), max_size=2))


@PROPERTY
@given(changes=changes())
def test_reused_vectors_are_those_that_would_be_computed(
    stage: Stage, changes: tuple[list[list[str]], list[tuple[str, tuple[int, int]]]]
) -> None:
    old, new = changes
    names = [stage.write([(f"old-{at}", text) for at, text in enumerate(texts)]) for texts in old]
    items = [(f"new-{at}", text) for at, (text, _) in enumerate(new)]
    chunks = with_source_rows(stage.chunks(items, [source for _, source in new]), stage.checkpoint, names)

    # Of each chunk the row of its item's old part that has its text.
    for row in chunks.select(["text", "@source", "@source_item", SOURCE_ROW]).to_pylist():
        known = set()
        if row["@source"] >= 0:
            text = old[row["@source"]][row["@source_item"]]
            known = set(stage.chunks([("x", text)]).column("text").to_pylist())
            if row["text"] in known:
                part = stage.checkpoint.read_part(names[row["@source"]])
                found = part.slice(row[SOURCE_ROW], 1).to_pylist()[0]
                assert (found["item_id"], found["text"]) == (f"old-{row['@source_item']}", row["text"])
        assert (row[SOURCE_ROW] >= 0) == (row["text"] in known)

    waiting = chunks.filter(pc.equal(chunks.column(SOURCE_ROW), -1))
    made = embed_table(waiting, stage.fillers, stage.layout) if len(waiting) else nothing_embedded(chunks, stage.layout)
    whole = assemble(EmbeddedTable(chunks, made), stage.checkpoint, names, stage.layout)
    again = embed_table(chunks, stage.fillers, stage.layout)
    assert whole.rows.combine_chunks().equals(again.rows.combine_chunks())
    assert whole.rejects.equals(again.rejects)
    assert whole.runtime == again.runtime

    beside = items_beside(whole.rows, chunks)
    kept = [item_id for item_id, text in items if FAILS not in text]
    rows = [whole.rows.filter(pc.equal(whole.rows.column("item_id"), item_id)) for item_id in kept]
    assert beside.num_rows == len(kept)
    assert beside.column("rows").to_pylist() == [len(some) for some in rows]
    for name in ("tokens", "tokens_dropped"):
        assert beside.column(name).to_pylist() == [pc.sum(some.column(name)).as_py() for some in rows]


def test_a_part_that_is_lost_is_no_source(stage: Stage) -> None:
    chunks = stage.chunks([("a", SENTENCES[0])], [(0, 0)])
    assert with_source_rows(chunks, stage.checkpoint, ["gone.parquet"]).column(SOURCE_ROW).to_pylist() == [-1]


@PROPERTY
@given(items=st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=8))
def test_which_items_of_a_part_are_live(items: list[tuple[int, bool]]) -> None:
    table = pa.table({"rows": pa.array([rows for rows, _ in items], pa.int32())})
    owners = [at for at, (rows, _) in enumerate(items) for _ in range(rows)]
    dead = np.array([row for row, at in enumerate(owners) if not items[at][1]], np.int32)
    assert live_items(table, dead).tolist() == [live for _, live in items]
    assert first_rows(table).tolist() == [owners.index(at) for at in range(len(items))]
