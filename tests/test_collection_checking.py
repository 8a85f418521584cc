"""Comparing a collection with the rows that it should have, and searching it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from collection_data import configuration, numbered, sliced, spec_of, table_of, unit_vectors, vector_column

from schemas.config import Collection
from schemas.errors import CollectionError, ConfigurationError
from schemas.milvus import CollectionSpec
from transforms import milvus
from transforms.milvus.nearest import effective_parameters
from transforms.milvus.rows import contents, row_check

FLAT = spec_of(index_type="FLAT")
ODD_IDS = [
    "plain#0",
    "it's#0",
    'say "hi"#0',
    "both ' and \"#0",
    "back\\slash#0",
    "trailing\\",
    "\\\\server\\share\\",
    "\\n is not a newline#0",
    "\\u0041\\x41\\101",
    "new\nline#0",
    "carriage\rreturn",
    "tab\tand\x0b\x0c\x08\x07\x1f\x7f",
    "nul\x00inside",
    "ünï/漢字/Ω#0",
    "😀 emoji 👩‍👩‍👧#1",
    "\u2028\u2029\u0085\ufeff",
    "e\u0301 is not \u00e9",
    "\u00e9 is not e\u0301",
    '"] or id != "',
    "') or true or ('",
    "{placeholder}",
    "%like_",
    "id",
    "null",
    " ",
    "  leading and trailing  ",
    "x" * 500,
]


@pytest.fixture
def config(milvus_uri: str) -> Collection:
    return configuration(milvus_uri)


@pytest.fixture
def connection(config: Collection) -> Iterator[milvus.Milvus]:
    with milvus.connected(config) as opened:
        milvus.create(opened, FLAT, "load-one")
        yield opened


def verify(connection: milvus.Milvus, *tables: pa.Table) -> milvus.RowCheck:
    parts = (table.select(["id", "content_hash"]) for table in tables)
    return milvus.verify_rows(connection, FLAT.name, parts)


def test_odd_ids_are_found_again(connection: milvus.Milvus) -> None:
    rows = table_of(ODD_IDS, content_hash=[f"{i:064d}" for i in range(len(ODD_IDS))])
    milvus.upsert(connection, FLAT, rows)
    milvus.finish(connection, FLAT)
    assert verify(connection, rows) == milvus.RowCheck(expected=len(ODD_IDS), found=len(ODD_IDS), total=len(ODD_IDS))
    # Each alone, too: a literal that swallows its neighbour would hide among others.
    for row_id in ODD_IDS:
        answer = connection.client.query(FLAT.name, filter=f"id == {milvus.quoted(row_id)}", output_fields=["id"])
        assert [row["id"] for row in answer] == [row_id]
    vectors = unit_vectors(len(ODD_IDS))
    for position, row_id in enumerate(ODD_IDS):
        assert milvus.search(connection, FLAT.name, vectors[position], 1, index_type="FLAT")[0].id == row_id
    assert sorted(row_id for page in row_check.every_id(connection, FLAT.name) for row_id in page) == sorted(ODD_IDS)


def test_missing_stale_and_unexpected_rows_are_told_apart(
    connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "ANSWER_ROWS", 7)
    monkeypatch.setattr(row_check, "PAGE_ROWS", 11)
    held = numbered(100)
    milvus.upsert(connection, FLAT, held)
    milvus.finish(connection, FLAT)
    assert verify(connection, *sliced(held, 10)).clean

    # The snapshot does not have 3 rows of the collection, has 5 of its own, and 2 with another hash.
    hashes = held.column("content_hash").to_pylist()
    hashes[41] = hashes[77] = "changed"
    changed = held.set_column(6, held.schema.field("content_hash"), [hashes])
    expected = [*sliced(changed.slice(3), 10), numbered(5, start=1000)]
    check = verify(connection, *expected)
    assert (check.expected, check.found, check.total) == (102, 97, 100)
    assert (check.missing_count, check.stale_count, check.unexpected_count) == (5, 2, 3)
    assert check.missing == [f"doc-{i}#0" for i in range(1000, 1005)]
    assert check.stale == ["doc-41#0", "doc-77#0"]
    assert sorted(check.unexpected) == ["doc-0#0", "doc-1#0", "doc-2#0"]
    assert check.part_indexes_missing == [3, 7, 10]
    assert not check.clean


def test_what_is_lost_can_be_loaded_again(connection: milvus.Milvus) -> None:
    held = numbered(30)
    milvus.upsert(connection, FLAT, held)
    milvus.finish(connection, FLAT)
    connection.client.delete(FLAT.name, ids=["doc-4#0", "doc-29#0"])
    parts = list(sliced(held, 10))
    check = verify(connection, *parts)
    assert (check.missing, check.part_indexes_missing, check.unexpected_count) == (["doc-4#0", "doc-29#0"], [0, 2], 0)
    for index in check.part_indexes_missing:
        milvus.upsert(connection, FLAT, parts[index])
    milvus.finish(connection, FLAT)
    assert verify(connection, *parts).clean


def compared(connection: milvus.Milvus, *tables: pa.Table, spec: CollectionSpec = FLAT) -> milvus.RowCheck:
    """All columns, as `vecbeam verify` compares them."""
    return milvus.verify_rows(connection, spec.name, iter(tables), spec=spec)


def with_value(table: pa.Table, row: int, name: str, value: Any) -> pa.Table:
    """A table with one value changed; a vector's is an array."""
    values = table.column(name).to_pylist()
    values[row] = value
    column = vector_column(values) if name == "vector" else pa.array(values, table.schema.field(name).type)
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), column)


def test_every_column_is_compared(connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "ANSWER_ROWS", 7)
    # Vectors of any length: neither Lite nor a server stores them normalised, whatever the metric.
    lengths = np.random.default_rng(1).uniform(0.01, 30, (60, 1)).astype(np.float32)
    held = numbered(60, vectors=unit_vectors(60) * lengths)
    milvus.upsert(connection, FLAT, held)
    milvus.finish(connection, FLAT)
    assert compared(connection, *sliced(held, 25)) == milvus.RowCheck(expected=60, found=60, total=60)
    vector = np.array(held.column("vector")[3].as_py(), np.float32)
    vector[5] = np.nextafter(vector[5], np.float32(9))
    changes = {
        3: ("vector", vector),
        10: ("text", "text of doc-10#0."),
        20: ("author", "author-9"),
        30: ("year", 2031),
        31: ("weight", np.nextafter(15.5, 16)),
        40: ("kept", False),
        41: ("item_id", "doc-14"),
        42: ("chunk", 1),
        43: ("start", 1),
        44: ("end", 99),
        50: ("tokens", 8),
        51: ("tokens_dropped", 1),
    }
    expected = held
    for row, (name, value) in changes.items():
        expected = with_value(expected, row, name, value)
    expected = with_value(expected, 55, "content_hash", "another")
    # A stale row is not counted as damaged too.
    expected = with_value(expected, 55, "text", "another text")
    check = compared(connection, *sliced(expected, 25))
    assert (check.damaged_count, check.stale_count, check.missing_count, check.found) == (12, 1, 0, 60)
    assert check.damaged == [f"doc-{row}#0" for row in changes]
    assert check.columns == dict.fromkeys([name for name, _ in changes.values()], 1)
    assert check.part_indexes_missing == [0, 1, 2]
    problems = "; ".join(check.problems())
    assert "1 rows stale (first: doc-55#0)" in problems
    assert "12 rows damaged: they differ in vector (1), text (1)" in problems
    assert "(first: doc-3#0, doc-10#0, doc-20#0)" in problems
    # Ids and hashes alone tell nothing of it.
    assert verify(connection, *sliced(expected, 25)).damaged_count == 0


def test_nulls_defaults_and_odd_values_compare_equal(connection: milvus.Milvus) -> None:
    texts = ["", " ", "漢字" * 2000, "x" * 65535, 'say "hi"\n', "nul is refused elsewhere", "😀", "é", "e\u0301"]
    rows = len(texts)
    held = table_of(
        [f"odd-{i}" for i in range(rows)],
        text=texts,
        author=[None, "", *["someone"] * (rows - 2)],
        year=[None, 2**63 - 1, -(2**63), *[0] * (rows - 3)],
        weight=[None, 1e308, 5e-324, -0.0, *[0.1] * (rows - 4)],
        kept=[None, True, False, *[True] * (rows - 3)],
        vectors=unit_vectors(rows) * np.float32(1e-30),
    )
    milvus.upsert(connection, FLAT, held)
    milvus.finish(connection, FLAT)
    # SPEC has a default for each field, which replaces null in the collection.
    assert compared(connection, held).clean
    assert compared(connection, with_value(held, 0, "year", 1)).columns == {"year": 1}
    assert compared(connection, with_value(held, 7, "text", texts[8])).columns == {"text": 1}


def test_null_is_not_zero(tmp_path: Path) -> None:
    """On Lite, which has fields that may be null; the server of the tests does not."""
    config = configuration(str(tmp_path / "null.db"))
    spec = spec_of(index_type="FLAT", metadata=tuple(replace(column, default=None) for column in FLAT.metadata))
    some = [None, "", "x"]
    numbers: list[Any] = [None, 0, 1]
    held = table_of(["a", "b", "c"], author=some, year=numbers, weight=numbers, kept=[None, False, True])
    with milvus.connected(config) as connection:
        milvus.create(connection, spec, "load-one")
        milvus.upsert(connection, spec, held)
        milvus.finish(connection, spec)
        assert compared(connection, held, spec=spec).clean
        for name, value in (("author", ""), ("year", 0), ("weight", 0.0), ("kept", False)):
            assert compared(connection, with_value(held, 0, name, value), spec=spec).columns == {name: 1}
            assert compared(connection, with_value(held, 1, name, None), spec=spec).columns == {name: 1}
    milvus.release(config)


def test_answers_are_bounded_by_rows_ids_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "ANSWER_ROWS", 1000)
    texts = ["x" * 60_000] * 100 + ["y"] * 1500
    part = numbered(1600, vectors=unit_vectors(1600, 512), text=texts)
    sizes = [rows.num_rows for rows in contents.slices(part)]
    assert sum(sizes) == 1600
    assert max(sizes) <= 1000
    for start, rows in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        held = sum(len(text) for text in texts[start : start + rows]) + rows * 2048
        assert held <= contents.ANSWER_BYTES
    # A row that is too large with others is queried alone; without its vector and text it is small.
    monkeypatch.setattr(contents, "ANSWER_BYTES", 1000)
    assert {rows.num_rows for rows in contents.slices(part)} == {1}
    monkeypatch.setattr(contents, "ANSWER_BYTES", 100_000)
    assert next(contents.slices(part.select(["id", "content_hash"]))).num_rows > 500


def test_an_answer_that_is_refused_as_too_large_is_asked_for_in_halves(
    connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody put texts in that are far longer than the checkpoint's."""
    held = numbered(50)
    milvus.upsert(connection, FLAT, held)
    milvus.finish(connection, FLAT)
    asked: list[int] = []
    plainly = contents.read

    def read(*args: Any, filter: str, **keys: Any) -> Any:
        asked.append(filter.count('"doc-'))
        if asked[-1] > 10:
            raise CollectionError("query failed: query results exceed the maxOutputSize Limit")
        return plainly(*args, filter=filter, **keys)

    monkeypatch.setattr(contents, "read", read)
    assert compared(connection, held) == milvus.RowCheck(expected=50, found=50, total=50)
    assert asked[:2] == [50, 25]
    assert sum(number for number in asked if number <= 10) == 50


def test_a_key_that_stands_twice_is_found_and_an_upsert_makes_it_one(connection: milvus.Milvus) -> None:
    """A server takes the same key again and again by insert; Lite keeps the last."""
    held = numbered(30)
    milvus.upsert(connection, FLAT, held)
    twice = [dict(row) for row in held.slice(7, 2).to_pylist()]
    for row in twice:
        row["text"] = "older or newer"
    connection.client.insert(FLAT.name, twice)
    milvus.finish(connection, FLAT)
    parts = list(sliced(held, 10))
    check = compared(connection, *parts)
    assert not check.clean
    if check.total > 30:
        assert (check.total, check.unexpected_count, check.unexpected) == (32, 2, [])
        milvus.find_duplicates(connection, FLAT.name, sliced(held, 10), check)
        assert check.duplicated == ["doc-7#0", "doc-8#0"]
        assert check.part_indexes_missing == [0]
        assert "2 rows unexpected (first: doc-7#0, doc-8#0)" in check.problems()
    else:
        assert check.damaged == ["doc-7#0", "doc-8#0"]
    milvus.upsert(connection, FLAT, parts[0])
    milvus.finish(connection, FLAT)
    assert compared(connection, *parts) == milvus.RowCheck(expected=30, found=30, total=30)


def test_lists_are_cut_and_counts_are_not(connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_check, "LISTED", 4)
    milvus.upsert(connection, FLAT, numbered(20))
    milvus.finish(connection, FLAT)
    check = verify(connection, numbered(10, start=100))
    assert (check.missing_count, check.unexpected_count, check.found) == (10, 20, 0)
    assert (len(check.missing), len(check.unexpected)) == (4, 4)
    assert verify(connection).unexpected_count == 20


def test_search_filters_and_names_a_filter_it_does_not_understand(connection: milvus.Milvus) -> None:
    milvus.upsert(connection, FLAT, numbered(60))
    milvus.finish(connection, FLAT)
    milvus.publish(connection, "docs", FLAT.name)
    query = unit_vectors(60)[7]
    hits = milvus.search(connection, "docs", query, 5, output_fields=["text", "year", "kept"], index_type="FLAT")
    assert hits[0].id == "doc-7#0"
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert hits[0].fields == {"text": "text of doc-7#0", "year": 2007, "kept": False}
    assert len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    wanted = 'author == "author-2" and year > 2010 and kept == true'
    filtered = milvus.search(connection, "docs", query, 60, wanted, ["year"], index_type="FLAT")
    assert sorted(hit.fields["year"] for hit in filtered) == [
        2000 + i for i in range(11, 60) if i % 3 == 2 and i % 2 == 0
    ]
    assert milvus.search(connection, "docs", query, 5, 'author == "none"', index_type="FLAT") == []

    for broken in ("year >", "nowhere == 3", 'year == "x"', "author = 'x'", 'author == "unclosed'):
        with pytest.raises(ConfigurationError) as caught:
            milvus.search(connection, "docs", query, 5, broken, index_type="FLAT")
        assert broken in str(caught.value)
    with pytest.raises(CollectionError):
        milvus.search(connection, "nothing_there", query, 5, "year > 3", index_type="FLAT")
    # Someone took it out of memory, or the server has just been restarted.
    connection.client.release_collection(FLAT.name)
    assert milvus.search(connection, "docs", query, 1, index_type="FLAT")[0].id == "doc-7#0"
    connection.client.release_collection(FLAT.name)
    assert milvus.count(connection, FLAT.name) == 60
    with pytest.raises(CollectionError, match="docs"):
        milvus.search(connection, "docs", np.ones(5, np.float32), 5, index_type="FLAT")


def test_a_narrow_filter_still_finds_all_that_match(connection: milvus.Milvus) -> None:
    """A walk through few lists, or a short one through a graph, passes by the few rows that a filter leaves."""
    rows = 2000
    milvus.upsert(connection, FLAT, numbered(rows, vectors=unit_vectors(rows)))
    wanted = "year in [2100, 2700, 3300, 3900]"
    for kind, build, search in (("IVF_FLAT", {"nlist": 64}, {"nprobe": 1}), ("HNSW", {"M": 4}, {"ef": 4})):
        milvus.finish(connection, spec_of(index_type=kind, index_parameters=build))
        hits = milvus.search(
            connection, FLAT.name, unit_vectors(rows)[0], 10, wanted, search_parameters=search, index_type=kind
        )
        assert sorted(hit.id for hit in hits) == ["doc-100#0", "doc-1300#0", "doc-1900#0", "doc-700#0"]


def test_ef_is_never_below_k() -> None:
    assert effective_parameters("HNSW", {}, 10) == {"ef": 64}
    assert effective_parameters("HNSW", {"ef": 3}, 10) == {"ef": 10}
    assert effective_parameters("HNSW", {}, 500) == {"ef": 500}
    assert effective_parameters("IVF_FLAT", {"nprobe": 3}, 500) == {"nprobe": 3}
    assert effective_parameters("FLAT", {}, 500) == {}
