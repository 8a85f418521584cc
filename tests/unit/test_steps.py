"""Steps of Beam, run over a list on Beam's own runner: what comes out is encoded, so it can travel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import eager
import pyarrow as pa
import pytest
from apache_beam.pvalue import TaggedOutput

from schemas.records import Key, PartRecord, ReadRecord, RejectRecord
from transforms.embed.record import read_records, record_tables
from transforms.embed.stage import WriteRecords


class _Sorted(beam.DoFn):  # type: ignore[misc]
    def process(self, number: int) -> Iterator[Any]:
        if number < 0:
            yield TaggedOutput("negative", number)
        elif number:
            yield number


class _Doubled(beam.PTransform):  # type: ignore[misc]
    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        return numbers | beam.Map(lambda number: 2 * number)


@pytest.fixture(scope="module")
def records() -> list[ReadRecord | RejectRecord | PartRecord]:
    return [
        ReadRecord(Key("docs", 0), (("a", 3), ("b", 1))),
        ReadRecord(Key("docs", 1), (("b", 4),)),
        RejectRecord(Key("docs", 0), "r1.parquet", (("a", "InvalidJson", 2), ("b", "EmptyText", 1))),
        RejectRecord(Key("docs", 1), "r2.parquet", (("b", "EmptyText", 1),)),
        PartRecord(Key("docs", 0), "p0.parquet", 5, 4, 50, 1, 2, 1000, embedded=True, rows_embedded=3),
        PartRecord(Key("docs", 1), "p1.parquet", 1, 1, 10, 0, 0, 500, embedded=False),
    ]


def test_a_step_gives_lists_by_tag(tmp_path: Path) -> None:
    found = eager.run(_Sorted(), [1, -2, 0, 3], tmp_path, "negative")
    assert {tag: sorted(values) for tag, values in found.items()} == {"main": [1, 3], "negative": [-2]}
    assert sorted(eager.run(_Doubled(), [1, 2], tmp_path)["main"]) == [2, 4]


def test_a_step_without_output_gives_empty_lists(tmp_path: Path) -> None:
    assert eager.run(_Sorted(), [0], tmp_path, "negative") == {"main": [], "negative": []}


def by_first(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=str)


@pytest.mark.parametrize("pieces", [1, 3])
def test_records_are_written_as_they_are_summed_at_once(tmp_path: Path, records: list[Any], pieces: int) -> None:
    (tmp_path / "out").mkdir()
    eager.run(WriteRecords(str(tmp_path / "run"), pieces), records, tmp_path / "out")
    assert len(list((tmp_path / "run" / "files").iterdir())) == pieces
    parts, files = read_records(str(tmp_path / "run"))
    for written, table in zip((parts, files), record_tables(records), strict=True):
        assert by_first(written) == by_first(table)
    assert not (tmp_path / "run").exists()
    assert sorted(zip(files.column("uri").to_pylist(), files.column("items_read").to_pylist(), strict=True)) == [
        ("a", 3),
        ("b", 5),
    ]
