"""Who an item is, and whether it is still the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.layout import Layout, Space, VectorField, item_schema
from schemas.records import ITEM_SCHEMA
from transforms.checkpoint.part_digest import batch_digest
from transforms.diff.digest import DIGEST_BYTES, Side, halves, item_digests, new_digests, old_digests
from transforms.embed.work import with_facts

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=100)
METADATA = {"shelf": "int", "name": "string"}

texts = st.text("ab\0", max_size=3)
item = st.tuples(texts, texts, st.one_of(st.none(), st.integers(0, 2)), st.one_of(st.none(), texts))


def table(items: list[tuple[Any, ...]], uris: list[str] | None = None) -> pa.Table:
    ids, contents, shelves, names = zip(*items, strict=True) if items else [()] * 4
    values = {"item_id": ids, "@uri": uris or ["u"] * len(items), "@place": ids, "@content": contents}
    return pa.table({**values, "shelf": shelves, "name": names}, schema=item_schema(METADATA))


@PROPERTY
@given(one=item, two=item, chunkings=st.tuples(st.sampled_from([b"[1]", b"[2]"]), st.sampled_from([b"[1]", b"[2]"])))
@example(("a", "", None, None), ("a\0", "", None, None), (b"[1]", b"[1]"))
@example(("a", "b", None, ""), ("a", "b", None, None), (b"[1]", b"[1]"))
def test_digests_are_equal_where_all_that_they_stand_for_is(one: Any, two: Any, chunkings: tuple[bytes, bytes]) -> None:
    (first,), (whole,), (content,) = item_digests(table([one]), chunkings[0])
    (first_2,), (whole_2,), (content_2,) = item_digests(table([two]), chunkings[1])
    assert (first == first_2) == (one[0] == two[0])
    assert (content == content_2) == (one[1] == two[1])
    assert (whole == whole_2) == ((one, chunkings[0]) == (two, chunkings[1]))


@PROPERTY
@given(items=st.lists(item, max_size=5), data=st.data())
def test_new_digests_say_where_an_item_stands(items: list[Any], data: st.DataObject) -> None:
    files = {"x": 4, "y": 2, "z": 7}
    uris = [data.draw(st.sampled_from(list(files))) for _ in items]
    found = new_digests(table(items, uris), (3, 5), files, b"[1]")
    assert found.column("file").to_pylist() == [files[uri] for uri in uris]
    assert found.column("row").to_pylist() == list(range(len(items)))
    assert set(zip(*(found.column(name).to_pylist() for name in ("shard", "ordinal", "side")), strict=True)) <= {
        (3, 5, 0)
    }
    assert found.column("size").to_pylist() == [len(one[1].encode()) for one in items]
    bare = new_digests(table(items, uris), (3, 5), files, b"[1]", whole=False)
    assert bare.column("key").equals(found.column("key"))


@PROPERTY
@given(items=st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.sampled_from("xyz")), max_size=6))
def test_old_digests_are_of_live_items(items: list[tuple[int, bool, str]]) -> None:
    beside = [
        {"key": bytes([at] * 16), "digest": bytes([at + 100] * 16), "content": bytes(16), "path": path, "rows": rows}
        | {"tokens": 0, "tokens_dropped": 0}
        for at, (rows, _, path) in enumerate(items)
    ]
    owners = [at for at, (rows, _, _) in enumerate(items) for _ in range(rows)]
    dead = np.array([row for row, at in enumerate(owners) if not items[at][1]], np.int32)
    files = {"x": (0, True), "y": (1, False)}
    found = old_digests(pa.Table.from_pylist(beside, schema=ITEM_SCHEMA), 9, dead, files)
    live = [(at, path) for at, (_, is_live, path) in enumerate(items) if is_live]
    assert found.column("key").to_pylist() == [bytes([at] * 16) for at, _ in live]
    assert found.column("ordinal").to_pylist() == [at for at, _ in live]
    assert found.column("file").to_pylist() == [files.get(path, (-1, False))[0] for _, path in live]
    sides = {"x": Side.KEPT, "y": Side.CANDIDATE, "z": Side.CANDIDATE}
    assert found.column("side").to_pylist() == [sides[path] for _, path in live]


@PROPERTY
@given(
    values=st.lists(st.binary(min_size=16, max_size=16), max_size=6), start=st.integers(0, 6), size=st.integers(0, 6)
)
def test_halves_are_the_bytes_of_digests(values: list[bytes], start: int, size: int) -> None:
    column = pa.table({"key": pa.array(values, pa.binary(DIGEST_BYTES))}).slice(start, size).column("key")
    expected = [
        [int.from_bytes(value[:8], "little"), int.from_bytes(value[8:], "little")]
        for value in values[start : start + size]
    ]
    assert halves(column).tolist() == expected


def chunk(**changes: Any) -> pa.Table:
    layout = Layout((VectorField("vector", Space({"weights": "w"}), 2),), METADATA)
    facts = {"id": "a#0", "item_id": "a", "chunk": 0, "text": "t", "start": 0, "end": 1, "content_hash": "h"}
    more = {"tokens": 1, "tokens_dropped": 0, "shelf": 1, "name": "n", "@token_ids": [1]}
    way = {"@uri": "u", "@place": "p", "@path": "f", "@digest": bytes(16), "@content_digest": bytes(16)}
    source = {"@kind": 0, "@source": -1, "@source_item": -1}
    return pa.Table.from_pylist([{**facts, **more, **way, **source, **changes}], schema=layout.chunks)


def test_a_part_is_named_by_all_that_its_rows_hold() -> None:
    name = batch_digest(chunk(), "space", 1)
    assert len(name) == 16
    other = {"id": "b#0", "item_id": "b", "chunk": 1, "start": 1, "end": 2, "content_hash": "i", "tokens": 2}
    other |= {"tokens_dropped": 1, "shelf": None, "name": "m", "@digest": bytes([1] * 16)}
    names = [batch_digest(chunk(**{column: value}), "space", 1) for column, value in other.items()]
    names += [
        batch_digest(chunk(), "other", 1),
        batch_digest(chunk(), "space", 2),
        batch_digest(chunk(), "space", 1, "s"),
    ]
    assert len({name, *names}) == len(names) + 1


def test_where_an_item_was_found_names_no_part() -> None:
    way = {"@uri": "v", "@place": "q", "@path": "g", "@content_digest": bytes([1] * 16), "@kind": 1, "@source": 3}
    names = {batch_digest(chunk(**{column: value}), "space", 1) for column, value in way.items()}
    assert names == {batch_digest(chunk(), "space", 1)}


def test_facts_of_items_say_what_digests_say() -> None:
    items = table([("a", "one", 1, None), ("b", "two", None, "n")], ["u", "v"])
    found = with_facts(items, b"[1]", {"u": "docs/u", "v": "docs/v"})
    _, whole, contents = item_digests(items, b"[1]")
    assert found.column("@path").to_pylist() == ["docs/u", "docs/v"]
    assert (found.column("@digest").to_pylist(), found.column("@content_digest").to_pylist()) == (whole, contents)
