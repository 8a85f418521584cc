"""Two sides of digests compared, against dictionaries that do the same an item at a time."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Kind
from transforms.diff.comparison import Comparison, buckets_of, compare, pack, pair_moves, split, unpack
from transforms.diff.digest import DIGEST_SCHEMA, Side

# Digests that share either half, so that comparing only one half is not enough.
DIGESTS = [
    bytes(16),
    b"\1" + bytes(15),
    bytes(15) + b"\1",
    b"\xff" * 8 + bytes(8),
    bytes(8) + b"\xff" * 8,
    b"\xff" * 16,
]
PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=100)

digests = st.sampled_from(DIGESTS)
new_items = st.lists(st.tuples(digests, digests, digests, st.integers(0, 3)), max_size=12)
old_items = st.lists(
    st.tuples(digests, digests, digests, st.sampled_from([(-1, False), (0, False), (1, False), (2, True), (3, True)])),
    max_size=6,
    unique_by=lambda item: item[0],
)


class Digests(NamedTuple):
    rows: list[dict[str, Any]]  # in corpus order, then in the order of the snapshot

    def table(self, seed: Any) -> pa.Table:
        """In another order, and in several chunks."""
        rows = list(self.rows)
        seed.shuffle(rows)
        middle = seed.randint(0, len(rows))
        return pa.concat_tables([pa.Table.from_pylist(some, DIGEST_SCHEMA) for some in (rows[:middle], rows[middle:])])


@st.composite
def both_sides(draw: st.DrawFn) -> Digests:
    rows = []
    for number, (key, digest, content, file) in enumerate(draw(new_items)):
        place = (number // 6, number % 6 // 3, number % 3)
        rows.append(_row(key, digest, content, Side.NEW, file, *place))
    for number, (key, digest, content, (file, kept)) in enumerate(draw(old_items)):
        rows.append(_row(key, digest, content, Side.KEPT if kept else Side.CANDIDATE, file, number // 3, number % 3, 0))
    return Digests(rows)


def _row(
    key: bytes, digest: bytes, content: bytes, side: Side, file: int, shard: int, ordinal: int, row: int
) -> dict[str, Any]:
    place = f"line {shard}{ordinal}{row}" if side == Side.NEW else ""
    where = {"file": file, "shard": shard, "ordinal": ordinal, "row": row, "size": 100 + row, "place": place}
    return {"key": key, "digest": digest, "content": content, "side": int(side), **where}


def work(new: dict[str, Any], kind: Kind, source: dict[str, Any] | None) -> tuple[Any, ...]:
    at = tuple(new[name] for name in ("shard", "ordinal", "row", "digest", "size"))
    if source is None:
        return (*at, int(kind), -1, -1, False)
    return (*at, int(kind), source["shard"], source["ordinal"], source["content"] == new["content"])


def dead(old: dict[str, Any], *, deleted: bool, moved: bool) -> tuple[Any, ...]:
    return (old["shard"], old["ordinal"], old["file"], deleted, moved)


def naive_compare(rows: list[dict[str, Any]], *, keep_last: bool) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in Comparison.__dataclass_fields__}
    new, old = defaultdict(list), {}
    for row in rows:
        if row["side"] == Side.NEW:
            new[row["key"]].append(row)
        else:
            old[row["key"]] = row
    for key, items in new.items():
        winner = items[-1 if keep_last else 0]
        for item in items:
            if item is not winner:
                at = tuple(item[name] for name in ("shard", "ordinal", "row"))
                found["duplicates"].append((*at, winner["file"], winner["place"]))
        was = old.get(key)
        if was is None:
            found["new"].append(tuple(winner.values()))
        elif was["side"] == Side.KEPT:
            found["conflicts"].append(was["file"])
        else:
            same_file = winner["file"] == was["file"]
            kind = Kind.CHANGED
            if winner["digest"] == was["digest"]:
                kind = Kind.UNCHANGED if same_file else Kind.RELOCATED
            found["work"].append(work(winner, kind, was))
            if kind != Kind.UNCHANGED:
                found["dead"].append(dead(was, deleted=False, moved=False))
    gone = (row for key, row in old.items() if key not in new and row["side"] == Side.CANDIDATE)
    found["old"] = [tuple(row.values()) for row in gone]
    found["conflicts"] = list(set(found["conflicts"]))
    return {name: sorted(values) for name, values in found.items()}


def naive_pairs(rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    new, old = defaultdict(list), defaultdict(list)
    for row in rows:
        (new if row["side"] == Side.NEW else old)[row["content"]].append(row)
    works, deads = [], []
    for content, items in new.items():
        for turn, item in enumerate(items):
            there = old[content]
            if turn < len(there):
                works.append(work(item, Kind.MOVED, there[turn]))
            else:
                works.append(work(item, Kind.NEW, there[-1] if there else None))
    for content, items in old.items():
        deads += [dead(item, deleted=True, moved=turn < len(new[content])) for turn, item in enumerate(items)]
    return sorted(works), sorted(deads)


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    table.validate(full=True)
    return sorted(tuple(row.values()) for row in table.to_pylist())


def as_lists(found: Comparison) -> dict[str, list[Any]]:
    values = {name: getattr(found, name) for name in Comparison.__dataclass_fields__}
    return {name: rows_of(value) if isinstance(value, pa.Table) else sorted(value) for name, value in values.items()}


@PROPERTY
@given(sides=both_sides(), keep_last=st.booleans(), seed=st.randoms(use_true_random=False))
def test_compare_says_what_dictionaries_say(sides: Digests, keep_last: bool, seed: Any) -> None:
    assert as_lists(compare(sides.table(seed), keep_last=keep_last)) == naive_compare(sides.rows, keep_last=keep_last)


@PROPERTY
@given(sides=both_sides(), keep_last=st.booleans(), buckets=st.integers(1, 5), seed=st.randoms(use_true_random=False))
def test_bucket_by_bucket_is_the_same(sides: Digests, keep_last: bool, buckets: int, seed: Any) -> None:
    table = sides.table(seed)
    found: dict[str, list[Any]] = defaultdict(list)
    for _, piece in split(table, buckets_of(table.column("key"), buckets)):
        for name, rows in as_lists(compare(unpack([pack(piece)]), keep_last=keep_last)).items():
            found[name] += rows
    found["conflicts"] = list(set(found["conflicts"]))
    whole = naive_compare(sides.rows, keep_last=keep_last)
    assert {name: sorted(found[name]) for name in whole} == whole


@PROPERTY
@given(sides=both_sides(), seed=st.randoms(use_true_random=False))
def test_moves_are_paired_as_dictionaries_pair_them(sides: Digests, seed: Any) -> None:
    rows = [row | {"side": min(row["side"], 1) * Side.CANDIDATE} for row in sides.rows]
    works, deads = pair_moves(Digests(rows).table(seed))
    assert (rows_of(works), rows_of(deads)) == naive_pairs(rows)


@PROPERTY
@given(groups=st.lists(st.integers(0, 4), max_size=20), sizes=st.lists(st.integers(0, 20), max_size=3))
def test_a_table_is_split_by_group_in_its_order(groups: list[int], sizes: list[int]) -> None:
    table = pa.table({"row": pa.array(range(len(groups)), pa.int32())})
    for size in sizes:  # the same table, in chunks
        table = pa.concat_tables([table.slice(0, size), table.slice(size)])
    expected: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        expected[group].append(row)
    found = split(table, np.array(groups, np.int64))
    assert [group for group, _ in found] == sorted(expected)
    assert {group: piece.column("row").to_pylist() for group, piece in found} == expected
