"""The work of a shard: which items of it are embedded, gathered into which batches."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import CorpusError
from schemas.layout import item_schema
from schemas.records import Key, Kind
from transforms.diff.comparison import WORK_SCHEMA
from transforms.embed import work
from transforms.embed.work import Gathered, ShardPlan, with_facts

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=100)


def items_of(contents: list[str], first: int = 0) -> pa.Table:
    ids = [f"item-{first + at}" for at in range(len(contents))]
    columns = {"item_id": ids, "@uri": ["u"] * len(ids), "@place": [""] * len(ids), "@content": contents}
    return with_facts(pa.table(columns, schema=item_schema({})), b"")


@PROPERTY
@given(
    tables=st.lists(st.lists(st.text("aé", max_size=5), max_size=6), max_size=6),
    batch_rows=st.integers(1, 5),
    batch_bytes=st.integers(1, 16),
)
def test_items_are_gathered_into_full_batches(tables: list[list[str]], batch_rows: int, batch_bytes: int) -> None:
    # The state grows one table at a time; while it is too large, the first rows go.
    expected: list[list[str]] = []
    waiting: list[str] = []
    for contents in tables:
        waiting += contents
        while len(waiting) >= batch_rows or sum(len(text.encode()) for text in waiting) >= batch_bytes:
            expected.append(waiting[:batch_rows])
            waiting = waiting[batch_rows:]
    expected += [waiting] if waiting else []

    gathered, found, first = Gathered("docs", batch_rows), [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "BATCH_BYTES", batch_bytes)
        for contents in tables:
            found += gathered.add(items_of(contents, first))
            first += len(contents)
        found += gathered.rest()
    assert [key for key, _ in found] == [Key("docs", at) for at in range(len(expected))]
    assert [table.column("@content").to_pylist() for _, table in found] == expected
    ids = [item_id for _, table in found for item_id in table.column("item_id").to_pylist()]
    assert ids == [f"item-{at}" for at in range(first)]


planned = st.lists(st.lists(st.tuples(st.text("ab", max_size=2), st.sampled_from(list(Kind))), max_size=4), max_size=4)


def plan_of(batches: list[list[tuple[str, Kind]]]) -> tuple[list[pa.Table], ShardPlan]:
    tables = [items_of([content for content, _ in batch], 10 * at) for at, batch in enumerate(batches)]
    rows = [
        {"shard": 0, "ordinal": at, "row": row, "digest": digest, "size": 1, "kind": int(kind)}
        | {"source": 10 * at + row, "source_item": row, "same_content": False}
        for at, batch in enumerate(batches)
        for row, ((_, kind), digest) in enumerate(zip(batch, tables[at].column("@digest").to_pylist(), strict=True))
    ]
    return tables, ShardPlan(pa.Table.from_pylist(rows, schema=WORK_SCHEMA), "docs")


@PROPERTY
@given(batches=planned)
def test_items_that_are_not_unchanged_are_selected(batches: list[list[tuple[str, Kind]]]) -> None:
    tables, plan = plan_of(batches)
    for ordinal, (batch, items) in enumerate(zip(batches, tables, strict=True)):
        found = plan.select(items, ordinal)
        expected = [row for row, (_, kind) in enumerate(batch) if kind != Kind.UNCHANGED]
        assert found.schema == items.schema
        assert found.column("item_id").to_pylist() == [f"item-{10 * ordinal + row}" for row in expected]
        assert found.column("@kind").to_pylist() == [batch[row][1] for row in expected]
        assert found.column("@source").to_pylist() == [10 * ordinal + row for row in expected]
        assert found.column("@source_item").to_pylist() == expected


@pytest.mark.parametrize(
    "change", [lambda items: items.slice(1), lambda items: items.take([1, 0]), lambda _: items_of([])]
)
def test_a_corpus_that_changes_while_it_is_read_is_no_plan(change: Any) -> None:
    (items,), plan = plan_of([[("a", Kind.NEW), ("b", Kind.NEW)]])
    with pytest.raises(CorpusError, match="changed while it was read: shard docs, batch 0"):
        plan.select(change(items), 0)
