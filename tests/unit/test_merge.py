"""What is merged of a snapshot's small parts, and that nothing of it changes."""

from __future__ import annotations

from pathlib import Path

import eager
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import SPACE_ID, part_table, snapshot

from schemas.layout import Layout, Space, VectorField
from schemas.records import ITEM_SCHEMA, Key
from schemas.rejects import rejects_table
from transforms.checkpoint import Checkpoint, LivePart
from transforms.checkpoint.embedded import EmbeddedBatch
from transforms.checkpoint.merge import MANY, MERGED_BYTES, SMALL_BYTES, Merge, MergeParts, find_merges

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=150)
FULL = 8

Parts = dict[str, tuple[int, int, int]]  # rows of the file, how many of them are dead, bytes

part = st.integers(1, 12).flatmap(
    lambda rows: st.tuples(
        st.just(rows),
        st.one_of(st.just(0), st.integers(0, rows - 1)),
        st.sampled_from([1000, SMALL_BYTES - 1, SMALL_BYTES, MERGED_BYTES + 1]),
    )
)
parts = st.lists(part, max_size=60).map(lambda some: {f"part-{at:02d}": one for at, one in enumerate(some)})


def merges(given: Parts) -> list[Merge]:
    dead = {name: (rows, list(range(dead))) for name, (rows, dead, _) in given.items()}
    sizes = {name: size for name, (_, _, size) in given.items()}
    return find_merges(snapshot(part_table(dead, sizes)), FULL)


def waits(rows: int, dead: int, size: int) -> bool:
    return dead > rows - dead or (rows - dead < FULL / 2 and size < SMALL_BYTES)


@PROPERTY
@given(given=parts)
def test_small_and_mostly_dead_parts_are_merged_in_order(given: Parts) -> None:
    found = merges(given)
    names = list(given)
    waiting = [at for at, name in enumerate(names) if waits(*given[name])]
    if len(waiting) <= MANY:
        assert found == []
        return
    taken = [at for merge in found for at in merge.positions]
    assert taken == sorted(set(taken))
    left = [at for at in waiting if at not in taken]
    assert set(taken) <= set(waiting)
    assert all(given[names[at]][1] == 0 for at in left), "a part that is mostly dead was left"
    for merge in found:
        assert [one.name for one in merge.parts] == [names[at] for at in merge.positions]
        assert all(len(one.dead) == given[one.name][1] for one in merge.parts)
        live = [given[one.name][0] - given[one.name][1] for one in merge.parts]
        assert len(live) == 1 or sum(live) <= FULL
        assert sum(given[one.name][2] for one in merge.parts[:-1]) <= MERGED_BYTES or len(live) == 2


@PROPERTY
@given(given=parts)
def test_merging_comes_to_an_end(given: Parts) -> None:
    live = sum(rows - dead for rows, dead, _ in given.values())
    for turn in range(10):
        found = merges(given)
        if not found:
            break
        gone = {one.name for merge in found for one in merge.parts}
        made = {}
        for number, merge in enumerate(found):
            rows = sum(given[one.name][0] - given[one.name][1] for one in merge.parts)
            size = sum(given[one.name][2] * (1 - given[one.name][1] / given[one.name][0]) for one in merge.parts)
            made[f"compact-{turn}-{number}"] = (rows, 0, int(size))
        given = {name: one for name, one in given.items() if name not in gone} | made
    assert merges(given) == []
    assert sum(rows - dead for rows, dead, _ in given.values()) == live


LAYOUT = Layout((VectorField("vector", Space({"weights": "w"}), 2),), {"shelf": "int"})


def batch(first: int, items: int) -> tuple[EmbeddedBatch, pa.Table]:
    """Items of two rows each, numbered from `first` on."""
    numbers = [first + at // 2 for at in range(2 * items)]
    ids = [f"item-{number}" for number in numbers]
    chunk = [at % 2 for at in range(2 * items)]
    facts = {"chunk": chunk, "start": chunk, "end": chunk, "tokens": numbers, "tokens_dropped": chunk, "shelf": numbers}
    texts = [f"{item} {number}" for item, number in zip(ids, chunk, strict=True)]
    columns = {
        "id": [f"{item}#{number}" for item, number in zip(ids, chunk, strict=True)],
        **{"item_id": ids, "text": texts, "content_hash": texts, **facts},
        "vector": [[float(number), 1.0] for number in numbers],
    }
    rows = pa.table({name: columns[name] for name in LAYOUT.rows.names}, schema=LAYOUT.rows)
    beside = [
        {"key": bytes([number]) * 16, "digest": bytes(16), "content": bytes(16), "path": "p", "rows": 2, "tokens": 1}
        | {"tokens_dropped": 0}
        for number in range(first, first + items)
    ]
    made = EmbeddedBatch(rows, rejects_table([]), 0, {"engine": "fake"})
    return made, pa.Table.from_pylist(beside, schema=ITEM_SCHEMA)


def test_a_merged_part_holds_the_live_rows_of_its_parts(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(tmp_path / "checkpoint"), "tested", SPACE_ID)
    one, two = batch(0, 3), batch(3, 2)
    checkpoint.write_part(Key("docs", 0), "one.parquet", *one)
    checkpoint.write_part(Key("docs", 1), "two.parquet", *two)
    live = (LivePart("one.parquet", np.array([2, 3], np.int32)), LivePart("two.parquet", np.array([], np.int32)))
    (tmp_path / "out").mkdir()
    (record,) = eager.run(MergeParts(checkpoint), [Merge((0, 1), live)], tmp_path / "out")["main"]
    assert (record.rows, record.items, record.embedded) == (8, 4, True)
    expected = pa.concat_tables([live[0].keep(one[0].rows), two[0].rows])
    assert checkpoint.read_part(record.name).replace_schema_metadata().equals(expected)
    keys = checkpoint.read_items(record.name).column("key").to_pylist()
    assert [key[0] for key in keys] == [0, 2, 3, 4]
    # A merge that was done already is found, not done again.
    (again,) = eager.run(MergeParts(checkpoint), [Merge((0, 1), live)], tmp_path / "out")["main"]
    assert again == record._replace(embedded=False)


@pytest.mark.parametrize("count", [MANY, MANY + 1])
def test_a_few_small_parts_stay(count: int) -> None:
    assert bool(merges({f"p{at}": (1, 0, 10) for at in range(count)})) == (count > MANY)
