"""Lists of work of any length: what workers get of them, and how large they make a graph."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import eager
import numpy as np
import pytest

from transforms.checkpoint import LivePart
from transforms.checkpoint.merge import MERGES, Merge
from transforms.checkpoint.snapshot import LIVE_PARTS
from transforms.diff.find_changes import PART_GROUPS
from transforms.embed.public.read_items import SHARD_WORK, ShardWork
from transforms.load.row_differences import NEW, OLD, PART_ROWS, PartRows
from transforms.read import SHARD_RANGES, ShardRange
from transforms.support import work_list
from transforms.support.work_list import listed
from transforms.support.work_rows import WorkRows

MANY = 230_000
"""Parts of a billion rows."""
GRAPH_BYTES = 100_000
"""Dataflow refuses a graph of 10 MB, with all its steps."""


def shard(at: int) -> ShardRange:
    return ShardRange(f"docs-{at:06d}", at, at, 1, 0, 64 << 20, None if at % 2 else True)


def part(at: int) -> LivePart:
    return LivePart(f"docs-{at:06d}-0.parquet", np.arange(at % 3, dtype=np.int32))


KINDS: list[tuple[WorkRows[Any], Any]] = [
    (SHARD_RANGES, shard),
    (SHARD_WORK, lambda at: ShardWork(shard(at), {(0, at): "a.jsonl line 3"}, f"plan/caf\udce9/{at}.parquet")),
    (LIVE_PARTS, part),
    (MERGES, lambda at: Merge((at, at + 1), (part(at), part(at + 1)))),
    (PART_ROWS, lambda at: PartRows(NEW if at % 2 else OLD, at - 1, part(at))),
    (PART_GROUPS, lambda at: tuple(range(at, at + 3))),
]
NAMES = ["survey", "embed", "load", "merge", "delta", "old parts"]


def shown(work: Any) -> str:
    return repr(work)


class _Shown(beam.PTransform):  # type: ignore[misc]
    def __init__(self, read: work_list.ReadWork) -> None:
        super().__init__()
        self._read = read

    def expand(self, begin: beam.PCollection) -> beam.PCollection:
        return begin.pipeline | "Work" >> self._read | "Shown" >> beam.Map(shown)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_workers_get_the_list_from_the_graph_or_from_a_file(
    kind: tuple[WorkRows[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, make = kind
    work = [make(at) for at in range(20)]
    uri = tmp_path / "run" / "work" / "list.parquet"
    (tmp_path / "out").mkdir()
    for limit in (work_list.INLINE_BYTES, 0):
        monkeypatch.setattr(work_list, "INLINE_BYTES", limit)
        with listed(work, rows, str(uri)) as read:
            assert uri.exists() == (limit == 0)
            found = eager.run(_Shown(read), [0], tmp_path / "out")["main"]
        assert sorted(found) == sorted(map(shown, work))
        assert not uri.parent.exists()


def test_an_empty_list_is_an_empty_collection(tmp_path: Path) -> None:
    with listed([], LIVE_PARTS, str(tmp_path / "list.parquet")) as read:
        assert eager.run(_Shown(read), [0], tmp_path)["main"] == []


@pytest.mark.parametrize("kind", KINDS[1:3], ids=NAMES[1:3])
def test_the_graph_of_a_billion_rows_stays_small(kind: tuple[WorkRows[Any], Any], tmp_path: Path) -> None:
    rows, make = kind
    work: Sequence[Any] = [make(at) for at in range(MANY)]
    with listed(work, rows, str(tmp_path / "work" / "list.parquet")) as read:
        pipeline = beam.Pipeline(runner="FnApiRunner")
        _ = pipeline | "Work" >> read
        assert pipeline.to_runner_api().ByteSize() < GRAPH_BYTES


def test_no_command_puts_a_list_into_the_graph_itself() -> None:
    root = Path(__file__).parents[2]
    found = []
    for folder in ("pipelines", "transforms"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "beam.Create":
                    found.append(path.relative_to(root).as_posix())
    # A public transform for a user's own pipeline, which has no folder of a run.
    assert sorted(found) == ["transforms/embed/public/read_items.py", "transforms/support/work_list.py"]
