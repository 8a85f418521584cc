"""Where batches of a shard end, against lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import Corpus
from schemas.layout import item_schema
from schemas.records import REJECT_SCHEMA, Key
from transforms.read.batch import Batch, BatchBuilder
from transforms.read.rejected_item import MAX_REASON_CHARS

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=150)

events = st.lists(
    st.one_of(
        st.tuples(st.just("item"), st.text("aé€🙂", max_size=6)),
        st.tuples(st.just("reject"), st.sampled_from(["short", "a\0b", "\ud800", "x" * (MAX_REASON_CHARS + 1)])),
        st.tuples(st.just("file"), st.integers(0, 9)),
    ),
    max_size=30,
)


def built(events: list[tuple[str, Any]], batch_rows: int, batch_bytes: int) -> list[Batch]:
    builder = BatchBuilder("docs", Corpus(paths=["x"], metadata={"shelf": "int"}), batch_rows, batch_bytes)
    batches = []
    for number, (event, value) in enumerate(events):
        if event == "file":
            builder.open_file(f"file-{number}", lambda value=value: value)
        elif event == "item":
            if builder.add(f"id-{number}", f"line {number}", value, (number,)):
                batches.append(builder.take())
        elif builder.reject(None, f"line {number}", "Bad", value):
            batches.append(builder.take())
    return [*batches, *builder.rest()]


@PROPERTY
@given(events=events, batch_rows=st.integers(1, 5), batch_bytes=st.integers(1, 20))
def test_batches_are_those_of_lists(events: list[tuple[str, Any]], batch_rows: int, batch_bytes: int) -> None:
    expected: list[tuple[list[Any], list[Any]]] = []
    items: list[Any] = []
    rejects: list[Any] = []
    uri = ""
    for number, (event, value) in enumerate(events):
        place = f"line {number}"
        if event == "file":
            uri = f"file-{number}"
            continue
        if event == "item":
            items.append((f"id-{number}", uri, place, value, number))
        else:
            rejects.append((None, uri, place, "read", "Bad"))
        size = sum(len(item[3].encode()) for item in items)
        full = size >= batch_bytes if event == "item" else False
        if full or (event == "item" and len(items) == batch_rows) or (event == "reject" and len(rejects) == batch_rows):
            expected.append((items, rejects))
            items, rejects = [], []
    if items or rejects:
        expected.append((items, rejects))

    batches = built(events, batch_rows, batch_bytes)
    assert [batch.key for batch in batches] == [Key("docs", at) for at in range(len(expected))]
    for batch, (its_items, its_rejects) in zip(batches, expected, strict=True):
        assert batch.items.schema == item_schema({"shelf": "int"})
        assert batch.rejects.schema == REJECT_SCHEMA
        assert [tuple(row.values()) for row in batch.items.to_pylist()] == its_items
        assert [tuple(row.values())[:-1] for row in batch.rejects.to_pylist()] == its_rejects
        assert all(len(reason) <= MAX_REASON_CHARS for reason in batch.rejects.column("reason").to_pylist())
        assert batch.items_read == len(its_items) + len(its_rejects)
    # Bytes are counted once: those after the last boundary of a file that nothing follows are not.
    told = sum(batch.bytes_read for batch in batches)
    assert 0 <= told <= sum(value for event, value in events if event == "file")
    if events and events[-1][0] == "item":
        assert told == sum(value for event, value in events if event == "file")


@pytest.mark.parametrize(("letters", "full"), [("a" * 9, False), ("a" * 10, True), ("é" * 5, True), ("é" * 4, False)])
def test_the_border_is_of_bytes_in_utf8(letters: str, full: bool) -> None:
    builder = BatchBuilder("docs", Corpus(paths=["x"]), 100, 10)
    assert builder.add("id", "", letters) is full
