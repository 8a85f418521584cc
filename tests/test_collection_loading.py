"""Upserting rows: what arrives, in which messages, and what is refused before it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from collection_data import all_rows, configuration, numbered, spec_of, table_of, unit_vectors
from pymilvus import MilvusException

from schemas.config import Collection
from schemas.errors import CollectionError
from schemas.milvus import MetadataColumn
from transforms import milvus
from transforms.milvus.rows import message as messages_module
from transforms.milvus.rows.upsert import messages

FLAT = spec_of(index_type="FLAT")


@pytest.fixture
def config(milvus_uri: str) -> Collection:
    return configuration(milvus_uri)


@pytest.fixture
def connection(config: Collection) -> Iterator[milvus.Milvus]:
    with milvus.connected(config) as opened:
        milvus.create(opened, FLAT, "load-one")
        yield opened


@pytest.fixture
def sent(connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each message that goes out; a server's writers send several at once, so in no fixed order."""
    rows: list[int] = []
    upsert = connection.client.upsert

    def counting(name: str, data: list[Any], **keys: Any) -> Any:
        rows.append(len(data))
        return upsert(name, data, **keys)

    monkeypatch.setattr(connection.client, "upsert", counting)
    return rows


def test_every_value_arrives(connection: milvus.Milvus) -> None:
    rows = table_of(
        ["a#0", "ü/ø 漢字 😀#1"],
        text=["first\nline", "zweite Zeile: \x00 \\ \" ' 🎈"],
        author=["ting-yili", ""],
        year=[-5, 2**62],
        weight=[0.1, 1e300],
        kept=[True, False],
    )
    assert milvus.upsert(connection, FLAT, rows) == 2
    milvus.finish(connection, FLAT)
    arrived = all_rows(connection, FLAT.name)
    assert milvus.count(connection, FLAT.name) == len(arrived) == 2
    for wanted in rows.to_pylist():
        got = arrived[wanted["id"]]
        np.testing.assert_array_equal(np.float32(got.pop("vector")), np.float32(wanted.pop("vector")))
        assert got == wanted


def test_messages_are_bounded_by_rows(connection: milvus.Milvus, sent: list[int]) -> None:
    connection.settings = connection.settings.model_copy(update={"message_rows": 40})
    assert milvus.upsert(connection, FLAT, numbered(100)) == 100
    assert sorted(sent) == [20, 40, 40]


def test_messages_are_bounded_by_bytes_and_a_large_row_goes_alone(connection: milvus.Milvus, sent: list[int]) -> None:
    texts = ["x" * 30_000] * 4 + ["y" * 65_535] + ["z"] * 3
    connection.settings = connection.settings.model_copy(update={"message_bytes": 65_536})
    connection.message_bytes = connection.settings.message_bytes
    assert milvus.upsert(connection, FLAT, numbered(8, text=texts)) == 8
    assert sorted(sent) == [1, 2, 2, 3]


def test_an_empty_table_sends_nothing(connection: milvus.Milvus, sent: list[int]) -> None:
    assert milvus.upsert(connection, FLAT, numbered(0)) == 0
    assert sent == []


def test_message_borders_cover_every_row_once() -> None:
    sizes = np.random.default_rng(0).integers(1, 5000, 1000)
    borders = list(messages(sizes, most_bytes=20_000, most_rows=7))
    assert [start for start, _ in borders] == [0, *(end for _, end in borders[:-1])]
    assert borders[-1][1] == 1000
    assert all(end - start == 1 or sizes[start:end].sum() <= 20_000 for start, end in borders)
    assert all(1 <= end - start <= 7 for start, end in borders)


def test_of_one_key_the_last_row_stays(connection: milvus.Milvus) -> None:
    """A server that got a key twice in one message would keep both rows."""
    rows = table_of(["a#0", "b#0", "a#0"], text=["old", "other", "new"])
    assert milvus.upsert(connection, FLAT, rows) == 2
    milvus.finish(connection, FLAT)
    assert milvus.count(connection, FLAT.name) == 2
    assert {row_id: row["text"] for row_id, row in all_rows(connection, FLAT.name).items()} == {
        "a#0": "new",
        "b#0": "other",
    }


def test_sending_again_changes_nothing(connection: milvus.Milvus) -> None:
    milvus.upsert(connection, FLAT, numbered(50))
    milvus.upsert(connection, FLAT, numbered(50, start=25))
    milvus.upsert(connection, FLAT, numbered(50))
    milvus.finish(connection, FLAT)
    assert milvus.count(connection, FLAT.name) == 75
    assert len(all_rows(connection, FLAT.name)) == 75


def test_defaults_stand_for_what_is_missing(connection: milvus.Milvus) -> None:
    gaps = {"author": [None, "x"], "year": [None, 1], "weight": [None, 2.0], "kept": [None, True]}
    milvus.upsert(connection, FLAT, table_of(["a#0", "b#0"], **gaps))
    milvus.finish(connection, FLAT)
    row = all_rows(connection, FLAT.name)["a#0"]
    assert (row["author"], row["year"], row["weight"], row["kept"]) == ("nobody", 0, 1.0, False)


def test_a_null_without_a_default_is_kept_or_refused_by_name(connection: milvus.Milvus) -> None:
    spec = replace(FLAT, name="docs_2", metadata=(MetadataColumn("author", "string"), *FLAT.metadata[1:]))
    milvus.create(connection, spec, "load-two")
    rows = table_of(["a#0", "b#0"], author=["somebody", None])
    state = milvus.state(connection, spec.name)
    assert state is not None
    if next(column for column in state.columns if column.name == "author").nullable:
        assert milvus.upsert(connection, spec, rows) == 2
        milvus.finish(connection, spec)
        assert all_rows(connection, spec.name)["b#0"]["author"] is None
        assert [hit.id for hit in milvus.search(connection, spec.name, unit_vectors(2)[1], 2, "author is null")] == [
            "b#0"
        ]
    else:
        with pytest.raises(
            CollectionError, match=r"row 'b#0' has no author, and v2\.3\.\d.* corpus.metadata.author.default"
        ):
            milvus.upsert(connection, spec, rows)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (table_of(["a#0", "b#0"], [np.ones(8), [1, 2, 3, np.nan, 5, 6, 7, 8]]), "1 vectors hold NaN.*'b#0'"),
        (table_of(["a#0", "b#0"], [np.full(8, np.inf), np.ones(8)]), "NaN or infinity.*'a#0'"),
        (table_of(["a#0", "b#0"], [np.ones(8), np.ones(7)]), "vector of row 'b#0' has 7 dimensions, its space has 8"),
        (table_of(["a#0"], text=["é" * 40_000]), "text of row 'a#0' has 80000 bytes; the collection takes 65535"),
        (table_of(["ü" * 300]), "id of row 'ü.*' has 600 bytes; the collection takes 512"),
        (table_of(["a#0"], author=["x" * 5000]), "author of row 'a#0' has 5000 bytes; the collection takes 4096"),
    ],
)
def test_what_the_collection_can_not_hold_is_refused_before_it_is_sent(
    connection: milvus.Milvus, sent: list[int], rows: Any, words: str
) -> None:
    with pytest.raises(CollectionError, match=words):
        milvus.upsert(connection, FLAT, rows)
    assert sent == []


def test_a_refused_message_is_halved_and_its_size_remembered(
    connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert, sizes = connection.client.upsert, []

    def narrow(name: str, data: list[Any], **keys: Any) -> Any:
        sizes.append(len(data))
        if len(data) > 40:
            raise MilvusException(message="grpc: received message larger than max (99 vs. 64)")
        return upsert(name, data, **keys)

    monkeypatch.setattr(connection.client, "upsert", narrow)
    assert milvus.upsert(connection, FLAT, numbered(100)) == 100
    assert max(sizes) == 100
    sizes.clear()
    assert milvus.upsert(connection, FLAT, numbered(100)) == 100
    assert max(sizes) <= 40
    milvus.finish(connection, FLAT)
    assert milvus.count(connection, FLAT.name) == 100


def test_a_row_that_is_too_large_alone_is_an_error(connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any, **__: Any) -> Any:
        raise MilvusException(message="grpc: received message larger than max (99 vs. 64)")

    monkeypatch.setattr(connection.client, "upsert", refusing)
    with pytest.raises(CollectionError, match=r"refuses a message as too large.*lower collection.message_bytes"):
        milvus.upsert(connection, FLAT, numbered(3))


def in_order(rows: dict[str, dict[str, Any]]) -> list[list[tuple[str, str]]]:
    return [sorted((name, str(value)) for name, value in rows[row].items()) for row in sorted(rows)]


def test_columns_arrive_as_rows_do(connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table_of(
        ["a#0", "b#0"],
        unit_vectors(2),
        text=["one", "zwei 🎈"],
        author=["x", "y"],
        year=[-5, 2**62],
        weight=[0.1, -1e300],
        kept=[True, False],
    )
    milvus.upsert(connection, FLAT, rows)
    milvus.finish(connection, FLAT)
    columns = in_order(all_rows(connection, FLAT.name))
    # A version of pymilvus without what is wrapped gets dicts.
    monkeypatch.setattr(messages_module, "_PREPARE", "no_such_method")
    milvus.upsert(connection, FLAT, rows)
    milvus.finish(connection, FLAT)
    assert in_order(all_rows(connection, FLAT.name)) == columns


def test_this_pymilvus_takes_columns(connection: milvus.Milvus) -> None:
    rows = messages_module.Rows(table_of(["a#0"]).drop_columns(["vector"]), unit_vectors(1), {}, frozenset())
    assert messages_module.as_data(connection.client, rows) is rows


def test_an_answer_for_fewer_rows_is_an_error(connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.client, "upsert", lambda *_, **__: {"upsert_count": 3})
    with pytest.raises(CollectionError, match="acknowledged 3 of 5 rows for 'docs_1'"):
        milvus.upsert(connection, FLAT, numbered(5))


def test_a_collection_that_is_gone_is_an_error_that_names_it(connection: milvus.Milvus) -> None:
    connection.client.drop_collection(FLAT.name)
    with pytest.raises(CollectionError, match="docs_1"):
        milvus.upsert(connection, FLAT, numbered(5))
