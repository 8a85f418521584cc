"""From one snapshot to another: what is deleted and upserted, against a collection that is a dictionary."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from snapshots import part_table, snapshot

from transforms.checkpoint import Snapshot
from transforms.load.row_differences import NEW, part_rows, row_digests, settle

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=150)
IDS = [f"{item}#{chunk}" for item in "abc" for chunk in range(3)]

Row = tuple[str, int]  # its id, and the value of a column


class Two(NamedTuple):
    """Parts as they lie in the checkpoint, and of two snapshots the live rows of each of their parts."""

    parts: dict[str, list[Row]]
    old: dict[str, set[int]]
    new: dict[str, set[int]]

    def snapshot(self, live: dict[str, set[int]]) -> Snapshot:
        dead = {
            name: (len(self.parts[name]), [*({*range(len(self.parts[name]))} - rows)]) for name, rows in live.items()
        }
        return snapshot(part_table(dead))

    def collection(self, live: dict[str, set[int]]) -> dict[str, int]:
        return dict(self.parts[name][row] for name, rows in live.items() for row in rows)

    def table(self, name: str) -> pa.Table:
        ids, values = zip(*self.parts[name], strict=True)
        items = [row_id.partition("#")[0] for row_id in ids]
        return pa.table({"id": ids, "item_id": items, "value": values})


@st.composite
def two_snapshots(draw: st.DrawFn) -> Two:
    rows = st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 1)), min_size=1, unique_by=lambda row: row[0])
    parts = {f"part-{number}": some for number, some in enumerate(draw(st.lists(rows, min_size=1, max_size=4)))}
    sides = []
    for _ in range(2):
        taken: set[str] = set()
        live: dict[str, set[int]] = {}
        for name in draw(st.permutations(list(parts))):
            wanted = draw(st.lists(st.booleans(), min_size=len(parts[name]), max_size=len(parts[name])))
            places = {at for at, (row_id, _) in enumerate(parts[name]) if wanted[at] and row_id not in taken}
            if places:
                live[name] = places
                taken |= {parts[name][at][0] for at in places}
        sides.append(live)
    return Two(parts, *sides)


@PROPERTY
@given(two=two_snapshots(), seed=st.randoms(use_true_random=False))
@example(Two({"p": [("a#0", 0), ("b#0", 0)]}, {"p": {0}}, {"p": {0, 1}}), None)
@example(Two({"p": [("a#0", 0), ("b#0", 0)]}, {"p": {0}}, {"p": {1}}), None)
def test_the_delta_brings_a_collection_to_the_new_snapshot(two: Two, seed: Any) -> None:
    old, new = two.snapshot(two.old), two.snapshot(two.new)
    before, wanted = two.collection(two.old), two.collection(two.new)
    differing = part_rows(old, new)
    if seed:
        seed.shuffle(differing)
    tables = [
        row_digests(given.part.keep(two.table(given.part.name)), given.side, given.position) for given in differing
    ]
    settled = (
        settle(pa.concat_tables(tables)) if tables else settle(row_digests(two.table(next(iter(two.parts))), 0, 0)[:0])
    )

    collection = dict(before)
    for row_id in settled.gone:
        del collection[row_id]
    for (part, row), vanishing in settled.upserts.items():
        for row_id in vanishing:  # ids of the same item, and each exists until then
            del collection[row_id]
        live = new.live_part(part)
        upserted = live.keep(two.table(live.name)).slice(row, 1).to_pylist()[0]
        assert {row_id.partition("#")[0] for row_id in vanishing} <= {upserted["item_id"]}
        assert before.get(upserted["id"]) != upserted["value"], "written again for nothing"
        collection[upserted["id"]] = upserted["value"]
    assert collection == wanted


@PROPERTY
@given(two=two_snapshots())
def test_what_two_snapshots_share_is_not_looked_at(two: Two) -> None:
    same = two.snapshot(two.new)
    assert part_rows(same, same) == []
    shared = {name for name in two.old if two.old[name] == two.new.get(name)}
    differing = part_rows(two.snapshot(two.old), same)
    assert shared.isdisjoint(given.part.name for given in differing)
    assert all(same.part_names[given.position] == given.part.name for given in differing if given.side == NEW)


def test_what_vanishes_of_an_item_goes_with_its_first_row() -> None:
    old = pa.table({"id": ["a#0", "a#1", "a#2", "b#0"], "item_id": ["a", "a", "a", "b"], "value": [0, 0, 0, 0]})
    new = pa.table({"id": ["a#1", "a#0"], "item_id": ["a", "a"], "value": [1, 1]})
    rows = pa.concat_tables([row_digests(old, 1, -1), row_digests(new, NEW, 5)])
    settled = settle(rows)
    assert settled.upserts == {(5, 0): ["a#2"], (5, 1): []}
    assert settled.gone == ["b#0"]
