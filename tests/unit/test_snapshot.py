"""A snapshot, against lists: however Arrow holds its tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from snapshots import SPACE_ID, part_table, snapshot

from schemas.records import FILE_SCHEMA
from transforms.checkpoint.snapshot import snapshot_id

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=100)

one_part = st.integers(1, 6).flatmap(
    lambda rows: st.tuples(st.just(rows), st.sets(st.integers(0, rows - 1)).map(sorted))
)
parts = st.lists(one_part, max_size=6).map(lambda some: {f"part-{at}": one for at, one in enumerate(some)})
files = st.lists(
    st.fixed_dictionaries(
        {
            "size": st.integers(0, 9),
            "modified": st.just(0.0),
            "items_read": st.integers(0, 5),
            "errors": st.dictionaries(st.sampled_from(["InvalidJson", "EmptyText"]), st.integers(1, 3)),
            "rejects": st.lists(st.sampled_from(["r1", "r2", "r3"]), max_size=2, unique=True),
            "complete": st.booleans(),
        }
    ),
    max_size=5,
)


def in_chunks(table: pa.Table, size: int) -> pa.Table:
    """The same rows, as slices of a table that has others around them."""
    if not table.num_rows:
        return table
    around = pa.concat_tables([table, table, table]).combine_chunks().slice(table.num_rows, table.num_rows)
    return pa.concat_tables([around.slice(at, size) for at in range(0, table.num_rows, size)])


def file_rows(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**file, "path": str(at), "errors": [{"error": error, "count": n} for error, n in file["errors"].items()]}
        for at, file in enumerate(given)
    ]


@PROPERTY
@given(given_parts=parts, size=st.integers(1, 3))
def test_live_parts_are_those_of_lists(given_parts: dict[str, tuple[int, list[int]]], size: int) -> None:
    found = snapshot(in_chunks(part_table(given_parts), size))
    assert found.part_names == list(given_parts)
    for live, (name, (rows, dead)) in zip(found.live_parts, given_parts.items(), strict=True):
        assert (live.name, live.dead.tolist()) == (name, dead)
        kept = live.keep(pa.table({"row": range(rows)})).column("row").to_pylist()
        assert kept == [row for row in range(rows) if row not in dead]
    assert found.total("rows") == sum(rows - len(dead) for rows, dead in given_parts.values())


@PROPERTY
@given(given_files=files, size=st.integers(1, 3))
def test_what_files_say_is_summed(given_files: list[dict[str, Any]], size: int) -> None:
    rows = file_rows(given_files)
    table = in_chunks(pa.Table.from_pylist(rows, schema=FILE_SCHEMA), size)
    found = snapshot(part_table({}), table.to_pylist())
    counts: dict[str, int] = {}
    for file in given_files:
        for error, count in file["errors"].items():
            counts[error] = counts.get(error, 0) + count
    assert found.errors() == counts
    assert list(found.errors()) == sorted(counts)
    assert found.rejects() == list(dict.fromkeys(name for file in given_files for name in file["rejects"]))
    assert found.complete == all(file["complete"] for file in given_files)
    assert found.total("items_read") == sum(file["items_read"] for file in given_files)


@PROPERTY
@given(one=parts, two=parts, given_files=files, size=st.integers(1, 3))
@example({"p": (2, [0]), "q": (2, [])}, {"p": (2, []), "q": (2, [0])}, [], 1)
def test_an_id_follows_from_live_rows_and_rejects_alone(
    one: dict[str, tuple[int, list[int]]], two: dict[str, tuple[int, list[int]]], given_files: Any, size: int
) -> None:
    rows = pa.Table.from_pylist(file_rows(given_files), schema=FILE_SCHEMA)
    first, second = part_table(one), part_table(two)
    identity = snapshot_id(SPACE_ID, first, rows)
    assert identity == snapshot_id(SPACE_ID, in_chunks(first, size), in_chunks(rows, size))
    same = [(name, dead) for name, (_, dead) in one.items()] == [(name, dead) for name, (_, dead) in two.items()]
    assert (snapshot_id(SPACE_ID, second, rows) == identity) == same
    assert snapshot_id("another", first, rows) != identity
