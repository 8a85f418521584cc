"""Creating, describing, publishing and dropping collections, on Lite and on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collection_data import SPEC, configuration, spec_of

from schemas.errors import CollectionError, SpaceMismatchError
from schemas.milvus import MetadataColumn
from transforms import milvus


@pytest.fixture
def connection(milvus_uri: str) -> Iterator[milvus.Milvus]:
    with milvus.connected(configuration(milvus_uri)) as opened:
        yield opened


def test_a_new_collection_says_what_it_is(connection: milvus.Milvus) -> None:
    assert milvus.state(connection, SPEC.name) is None
    milvus.create(connection, SPEC, "load-one")
    state = milvus.state(connection, SPEC.name)
    assert state is not None
    assert (state.space_id, state.snapshot_id, state.load_id, state.state, state.vectors[0].size) == (
        "space-one",
        "snapshot-one",
        "load-one",
        "loading",
        8,
    )
    assert state.indexes == {}
    assert not state.index_built
    assert [str(column) for column in state.columns] == [
        "id VARCHAR(512)",
        "item_id VARCHAR(512)",
        "chunk INT64",
        "text VARCHAR(65535)",
        "start INT64",
        "end INT64",
        "content_hash VARCHAR(128)",
        "vector FLOAT_VECTOR(8)",
        "tokens INT64",
        "tokens_dropped INT64",
        "author VARCHAR(4096)",
        "year INT64",
        "weight DOUBLE",
        "kept BOOL",
    ]


def test_ready_changes_the_state_alone(connection: milvus.Milvus) -> None:
    milvus.create(connection, SPEC, "load-one")
    milvus.set_ready(connection, SPEC.name)
    state = milvus.state(connection, SPEC.name)
    assert state is not None
    assert (state.state, state.space_id, state.snapshot_id, state.load_id) == (
        "ready",
        "space-one",
        "snapshot-one",
        "load-one",
    )


def test_creating_again_after_a_lost_answer_keeps_the_collection(connection: milvus.Milvus) -> None:
    milvus.create(connection, SPEC, "load-one")
    milvus.create(connection, SPEC, "load-one")
    with pytest.raises(CollectionError, match="has a collection 'docs_1' already"):
        milvus.create(connection, SPEC, "load-two")


def test_check_free_takes_what_is_absent_or_the_same(connection: milvus.Milvus) -> None:
    milvus.check_free(connection, SPEC)
    milvus.create(connection, SPEC, "load-one")
    milvus.check_free(connection, SPEC)
    milvus.publish(connection, SPEC.alias, SPEC.name)
    milvus.check_free(connection, SPEC)


def test_check_free_refuses_a_collection_under_the_alias_name(connection: milvus.Milvus) -> None:
    milvus.create(connection, replace(SPEC, name="docs"), "load-one")
    with pytest.raises(CollectionError, match=r"has a collection named 'docs'.*choose another name"):
        milvus.check_free(connection, SPEC)


def test_check_free_refuses_an_alias_under_the_collection_name(connection: milvus.Milvus) -> None:
    milvus.create(connection, replace(SPEC, name="other"), "load-one")
    connection.client.create_alias("other", "docs_1")
    with pytest.raises(CollectionError, match="an alias 'docs_1' \\(of 'other'\\)"):
        milvus.check_free(connection, SPEC)


def test_check_free_refuses_another_space_and_shows_both(connection: milvus.Milvus) -> None:
    milvus.create(connection, SPEC, "load-one")
    with pytest.raises(SpaceMismatchError, match="holds space space-one, the configuration's is space-two"):
        milvus.check_free(connection, replace(SPEC, space_id="space-two"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dimensions": 16}, r"it has vector FLOAT_VECTOR\(8\), and should have vector FLOAT_VECTOR\(16\)"),
        ({"metadata": SPEC.metadata[:3]}, "it has kept BOOL, and should have no others"),
        ({"metadata": (*SPEC.metadata, MetadataColumn("pages", "int"))}, "and should have pages INT64"),
        ({"metadata": (MetadataColumn("author", "int"), *SPEC.metadata[1:])}, "author VARCHAR.*author INT64"),
        ({"id_max_bytes": 100}, r"id VARCHAR\(512\).*id VARCHAR\(100\)"),
    ],
)
def test_check_free_refuses_other_fields_and_shows_both(
    connection: milvus.Milvus, change: dict[str, Any], words: str
) -> None:
    milvus.create(connection, SPEC, "load-one")
    with pytest.raises(CollectionError, match=words):
        milvus.check_free(connection, spec_of(**change))


def test_check_free_refuses_a_collection_of_someone_else(connection: milvus.Milvus) -> None:
    connection.client.create_collection("docs_1", dimension=8)
    with pytest.raises(CollectionError, match="vecbeam did not create"):
        milvus.check_free(connection, SPEC)


def test_the_alias_moves_in_one_step_and_only_when_it_has_to(
    connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    milvus.create(connection, SPEC, "load-one")
    milvus.create(connection, spec_of(name="docs_2", space_id="space-two"), "load-two")
    assert milvus.served(connection, "docs") is None
    assert milvus.space_of(connection, "docs") is None

    assert milvus.publish(connection, "docs", "docs_1")
    assert (milvus.served(connection, "docs"), milvus.space_of(connection, "docs")) == ("docs_1", "space-one")
    assert milvus.served(connection, "docs_1") is None
    assert milvus.space_of(connection, "docs_2") == "space-two"
    assert not milvus.exists(connection, "docs")

    monkeypatch.setattr(connection.client, "drop_alias", lambda *_, **__: pytest.fail("searchers would see no alias"))
    assert milvus.publish(connection, "docs", "docs_2")
    assert milvus.served(connection, "docs") == "docs_2"
    monkeypatch.setattr(connection.client, "alter_alias", lambda *_, **__: pytest.fail("nothing to change"))
    assert not milvus.publish(connection, "docs", "docs_2")


def test_one_call_describes_what_an_alias_leads_to(connection: milvus.Milvus) -> None:
    assert milvus.described(connection, "docs") is None
    for name, space in ((SPEC.name, "space-one"), ("docs_2", "space-two")):
        milvus.create(connection, spec_of(name=name, space_id=space), "load-one")
        milvus.publish(connection, "docs", name)
        found = milvus.described(connection, "docs")
        whole = milvus.state(connection, name)
        assert found is not None
        assert whole is not None
        assert (found.name, found.space_id) == (name, space)
        assert (found.columns, found.properties) == (whole.columns, whole.properties)
    # A collection is not an alias.
    assert milvus.described(connection, "docs_2") is None


def test_an_alias_left_by_a_dropped_collection_is_taken_over(connection: milvus.Milvus) -> None:
    milvus.create(connection, SPEC, "load-one")
    milvus.publish(connection, "docs", "docs_1")
    connection.client.drop_collection("docs_1")
    assert milvus.served(connection, "docs") is None
    milvus.create(connection, spec_of(name="docs_2"), "load-two")
    milvus.publish(connection, "docs", "docs_2")
    assert milvus.served(connection, "docs") == "docs_2"


def test_a_served_collection_is_not_dropped(connection: milvus.Milvus) -> None:
    milvus.create(connection, SPEC, "load-one")
    milvus.publish(connection, "docs", "docs_1")
    with pytest.raises(CollectionError, match="alias 'docs' serves"):
        milvus.drop(connection, "docs_1")
    connection.client.drop_alias("docs")
    milvus.drop(connection, "docs_1")
    milvus.drop(connection, "docs_1")
    assert not milvus.exists(connection, "docs_1")


def test_publishing_what_is_not_there_names_it(connection: milvus.Milvus) -> None:
    with pytest.raises(CollectionError, match="docs_1"):
        milvus.publish(connection, "docs", "docs_1")


@pytest.mark.parametrize("left", [[], ["schema.json.tmp"], ["manifest.json", "partitions/_default/data.parquet"]])
@pytest.mark.parametrize("database", [None, "other"])
def test_a_folder_of_lite_that_a_killed_process_left_is_not_in_the_way(
    tmp_path: Path, left: list[str], database: str | None
) -> None:
    """Lite does not see a collection there, and could not make one: killed before the schema, or half dropped."""
    config = configuration(str(tmp_path / "milvus.db"))
    with milvus.connected(config) as opened:
        if database is not None:
            opened.client.create_database(database)
    config = config.model_copy(update={"database": database})
    root = tmp_path / "milvus.db"
    folder = (root / "databases" / database if database else root) / "collections" / SPEC.name
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half")
    with milvus.connected(config) as opened:
        with pytest.raises(Exception, match="File exists"):
            opened.client.create_collection(SPEC.name, dimension=4)
        milvus.create(opened, SPEC, "load-one")
        assert milvus.exists(opened, SPEC.name)
        milvus.create(opened, SPEC, "load-one")
        milvus.drop(opened, SPEC.name)
    milvus.release(config)
    assert not folder.exists()
