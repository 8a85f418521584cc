"""A value is the same item or reject in every format: JSONL, CSV and Parquet, in any of Parquet's types."""

from __future__ import annotations

import csv
import datetime
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.config import Corpus
from transforms.read import list_corpus, plan_shards, read_shard

REJECTED = "MetadataType"
DAY, TIME = datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30, 5)


def outcome(path: Path, **corpus: Any) -> list[Any]:
    settings = Corpus(paths=[str(path)], **corpus)
    batches = [b for s in plan_shards(list_corpus(settings), settings) for b in read_shard(s, settings, batch_rows=9)]
    items = [row for batch in batches for row in batch.items.to_pylist()]
    return [row["v"] if "v" in row else row["item_id"] for row in items] + [
        row["error"] for batch in batches for row in batch.rejects.to_pylist()
    ]


def as_csv(value: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([["id", "text", "v"], ["a", "words", value]])
    return out.getvalue().encode()


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (5, "int", 5),
        ("5", "int", 5),
        (5.0, "int", 5),
        ("5.0", "int", 5),
        (" 5 ", "int", 5),
        ("", "int", None),
        (5.5, "int", REJECTED),
        ("last", "int", REJECTED),
        ("5_0", "int", REJECTED),
        (True, "int", REJECTED),
        (2**63, "int", REJECTED),
        (0.5, "float", 0.5),
        ("0.5", "float", 0.5),
        (1, "float", 1.0),
        ("1e3", "float", 1000.0),
        ("nan", "float", REJECTED),
        ("inf", "float", REJECTED),
        (True, "float", REJECTED),
        (True, "bool", True),
        ("true", "bool", True),
        ("FALSE", "bool", False),
        (1, "bool", True),
        (0.0, "bool", False),
        ("no", "bool", False),
        (2, "bool", REJECTED),
        ("perhaps", "bool", REJECTED),
        ("words", "string", "words"),
        (5, "string", "5"),
        (0.25, "string", "0.25"),
        ("x" * 5000, "string", "MetadataTooLong"),
    ],
)
def test_a_value_that_one_format_takes_all_take(tmp_path: Path, value: Any, wanted: str, expected: Any) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "text": "words", "v": value}))
    (tmp_path / "a.csv").write_bytes(as_csv(value))
    kind = pa.uint64() if value == 2**63 else None
    table = pa.table({"id": ["a"], "text": ["words"], "v": pa.array([value], kind)})
    corpus = {"metadata": {"v": wanted}}
    found = {suffix: outcome(tmp_path / f"a.{suffix}", **corpus) for suffix in ("jsonl", "csv")}
    assert found == {"jsonl": [expected], "csv": [expected]}
    if not (value is True and wanted in ("int", "float")):  # a whole column of truth values is another schema
        pq.write_table(table, tmp_path / "a.parquet")
        assert outcome(tmp_path / "a.parquet", **corpus) == [expected]


@pytest.mark.parametrize(
    ("array", "wanted", "expected"),
    [
        (pa.array([5], pa.int8()), "int", 5),
        (pa.array([5], pa.uint64()), "int", 5),
        (pa.array([0.5], pa.float16()), "float", 0.5),
        (pa.array([0.5], pa.float32()), "float", 0.5),
        (pa.array([float("nan")]), "float", REJECTED),
        (pa.array([Decimal("1.50")]), "float", 1.5),
        (pa.array([Decimal("3.00")]), "int", 3),
        (pa.array([Decimal("1.50")]), "int", REJECTED),
        (pa.array([Decimal("1.50")]), "string", "1.50"),
        (pa.array([True]), "string", "true"),
        (pa.array(["x"], pa.large_string()), "string", "x"),
        (pa.array(["x"], pa.string_view()), "string", "x"),
        (pa.array(["x"]).dictionary_encode(), "string", "x"),
        (pa.array([5]).dictionary_encode(), "int", 5),
        (pa.array([b"x"]), "string", "x"),
        (pa.array([b"x"], pa.large_binary()), "string", "x"),
        (pa.array([b"xy"], pa.binary(2)), "string", "xy"),
        (pa.array([b"\xff"]), "string", REJECTED),
        (pa.array([DAY]), "string", "2024-02-29"),
        (pa.array([TIME], pa.timestamp("s")), "string", "2024-02-29T12:30:05"),
        (pa.array([TIME], pa.timestamp("us")), "string", "2024-02-29T12:30:05"),
        (pa.array([1709209805000000001], pa.timestamp("ns")), "string", "2024-02-29T12:30:05.000000001"),
        (pa.array([TIME], pa.timestamp("ms", "UTC")), "string", "2024-02-29T12:30:05Z"),
        (pa.array([TIME], pa.timestamp("us", "Europe/Berlin")), "string", "2024-02-29T12:30:05Z"),
        (pa.array([datetime.time(12, 30)]), "string", "12:30:00"),
        (pa.array([None], pa.null()), "string", None),
        (pa.array([None], pa.null()), "int", None),
        (pa.array([None], pa.date32()), "string", None),
        (pa.array([["x"]]), "string", "WrongSchema"),
        (pa.array([datetime.timedelta(1)]), "string", "WrongSchema"),
    ],
)
def test_columns_of_parquet(tmp_path: Path, array: pa.Array, wanted: str, expected: Any) -> None:
    pq.write_table(pa.table({"id": ["a"], "text": ["words"], "v": array}), tmp_path / "a.parquet")
    assert outcome(tmp_path / "a.parquet", metadata={"v": wanted}) == [expected]
    if expected != "WrongSchema" and not pa.types.is_null(array.type):
        nested = pa.StructArray.from_arrays([array], ["v"])
        pq.write_table(pa.table({"id": ["a"], "text": ["words"], "m": nested}), tmp_path / "b.parquet")
        assert outcome(tmp_path / "b.parquet", metadata={"v": {"from": "m.v", "type": wanted}}) == [expected]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(["a"]), "a"),
        (pa.array(["a"], pa.string_view()), "a"),
        (pa.array([b"a"]), "a"),
        (pa.array([7], pa.uint8()), "7"),
        (pa.array([DAY]), "2024-02-29"),
        (pa.array([b"\xff"]), "InvalidUtf8"),
        (pa.array([None], pa.null()), "EmptyId"),
        (pa.array([0.5]), "WrongSchema"),
    ],
)
def test_ids_of_parquet(tmp_path: Path, array: pa.Array, expected: str) -> None:
    pq.write_table(pa.table({"id": array, "text": pa.array([b"words"])}), tmp_path / "a.parquet")
    assert outcome(tmp_path / "a.parquet") == [expected]
