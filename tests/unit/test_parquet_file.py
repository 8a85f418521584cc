"""Parquet files of the checkpoint: what a bit that flipped does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import CheckpointError
from schemas.records import SCHEMA_VERSION
from transforms.support.storage.parquet_checksums import MARK, checked_footer, parquet_of
from transforms.support.storage.parquet_file import METADATA_KEY, parquet, read_footer, read_table, write_pieces
from transforms.support.storage.stored_table import StoredTable, write_rows

FACTS = {"schema_version": SCHEMA_VERSION, "space_id": "00ff"}


def rows(number: int) -> pa.Table:
    """Rows with nulls, in which the header of a page says how many values it has."""
    vectors = pa.array(np.random.default_rng(0).normal(size=number * 4).astype(np.float32))
    return pa.table(
        {
            "id": [f"row {at}" for at in range(number)],
            "uri": [f"file {at // 7}" for at in range(number)],
            "author": [None if at % 3 else "ting" for at in range(number)],
            "vector": pa.FixedSizeListArray.from_arrays(vectors, 4).cast(pa.list_(pa.float32())),
        }
    )


def test_no_byte_that_flipped_gives_other_rows() -> None:
    table = rows(20)
    data = parquet(table, FACTS, row_group_rows=10)
    unnoticed = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        try:
            read = parquet_of(io.BytesIO(bytes(damaged))).read()
        except pa.ArrowInvalid:
            continue
        unnoticed += 1
        assert read.equals(table)
    assert unnoticed <= len(MARK) + 4  # and the four bytes at the beginning, which nothing reads


@pytest.mark.parametrize("columns", [["id"], ["author", "vector"]])
def test_a_damaged_column_is_found_where_it_is_read(columns: list[str]) -> None:
    data = bytearray(parquet(rows(20), FACTS))
    header = checked_footer(io.BytesIO(bytes(data))).metadata.row_group(0).column(2).data_page_offset
    data[header + 3] ^= 2
    file = parquet_of(io.BytesIO(bytes(data)))
    if "author" in columns:
        with pytest.raises(pa.ArrowInvalid, match="are not those that were written"):
            file.read(columns)
    else:
        assert file.read(columns).equals(rows(20).select(columns))


def test_files_that_are_written_in_pieces_have_checksums(tmp_path: Path) -> None:
    uri = str(tmp_path / "table.parquet")
    # So many row groups that the footer is longer than what is read of the end at first.
    write_pieces(uri, [rows(1000)], FACTS, row_group_rows=2)
    data = Path(uri).read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    assert length > 64 << 10
    assert read_table(uri).equals(rows(1000))
    assert read_footer(uri, "00ff") == (FACTS, len(data))
    for at in (100, len(data) // 3, len(data) - length - 20, len(data) - length + 40, len(data) - 30, len(data) - 7):
        damaged = bytearray(data)
        damaged[at] ^= 4
        Path(uri).write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError, match="the file is damaged") as refused:
            read_table(uri)
        assert uri in refused.value.message
        assert "delete that file" in refused.value.remedy


@pytest.mark.parametrize("groups", [[0], [0, 3], [3, 0]])
def test_a_file_without_rows_has_checksums(tmp_path: Path, groups: list[int]) -> None:
    uri = str(tmp_path / "table.parquet")
    write_pieces(uri, [rows(3).slice(0, number) for number in groups], FACTS)
    assert read_table(uri).equals(rows(3).slice(0, sum(groups)))
    damaged = bytearray(Path(uri).read_bytes())
    damaged[-30] ^= 1
    Path(uri).write_bytes(bytes(damaged))
    with pytest.raises(CheckpointError, match="the file is damaged"):
        read_table(uri)


def test_a_table_of_workers_has_checksums(tmp_path: Path) -> None:
    uri = str(tmp_path / "rows.parquet")
    write_rows(uri, [rows(100)], by="id")
    assert StoredTable(uri).rows(10, 5).equals(rows(100).slice(10, 5))
    damaged = bytearray(Path(uri).read_bytes())
    damaged[60] ^= 1
    Path(uri).write_bytes(bytes(damaged))
    with pytest.raises(CheckpointError, match="the file is damaged"):
        StoredTable(uri).rows(0, 1)


def test_files_without_checksums_are_read_and_other_programs_read_those_with(tmp_path: Path) -> None:
    uri = str(tmp_path / "old.parquet")
    pq.write_table(rows(100), uri, compression="zstd", write_page_checksum=True)
    assert read_table(uri).equals(rows(100))
    assert pq.read_table(io.BytesIO(parquet(rows(100), FACTS))).replace_schema_metadata().equals(rows(100))


@pytest.mark.parametrize(
    "facts", [b'{"schema_version": 1', b'{"schemq_version": 1}', b'{"schema_version": 1}', b"\xff"]
)
def test_facts_of_an_earlier_release_that_are_damaged_are_named(tmp_path: Path, facts: bytes) -> None:
    uri = str(tmp_path / "old.parquet")
    pq.write_table(rows(1).replace_schema_metadata({METADATA_KEY: facts}), uri)
    with pytest.raises(CheckpointError, match=r"old\.parquet: the file is damaged") as refused:
        read_footer(uri, "00ff")
    assert "delete that file" in refused.value.remedy
