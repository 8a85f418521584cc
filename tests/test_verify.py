"""`vecbeam verify`, `load --rebuild`, and what a sync sees of a collection that somebody else has written to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, text, write_jsonl
from faults import damages
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.load import load
from pipelines.rollback import rollback
from pipelines.steps.collection import row_sample
from pipelines.steps.collection.held import open_snapshot
from pipelines.steps.collection.row_sample import sample_rows
from pipelines.steps.publish.inspection import Inspection
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.config.loader import load_config
from schemas.errors import CollectionError, GateError
from transforms import milvus

pytestmark = pytest.mark.usefixtures("lite_released")

METADATA: dict[str, Any] = {"corpus": {"paths": ["corpus/*"], "metadata": {"kind": "string"}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 rows with a metadata field, published; the folder of it, closed."""
    folder = tmp_path_factory.mktemp("made")
    items = [{"id": f"item-{number}", "text": text(number), "kind": "plain"} for number in range(100)]
    write_jsonl(folder / "corpus" / "items.jsonl", items)
    config = configure(folder, **METADATA, batch_rows=32)
    backfill(config)
    milvus.release(config.collection)
    return folder


@pytest.fixture
def published(made: Path, tmp_path: Path) -> Config:
    """A copy of those 100 rows, for one test to damage."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return load_config(tmp_path / "vecbeam.yaml")


def overwrite(config: Config, rows: int) -> None:
    """Other vectors, texts and metadata under the same ids and content hashes."""
    with milvus.connected(config.collection) as connection:
        name = milvus.served(connection, config.name)
        connection.client.load_collection(name)
        ids = [f"item-{number}#0" for number in range(rows)]
        found = connection.client.query(name, filter=f"id in {ids}", output_fields=["*"])
        vectors = np.random.default_rng(0).standard_normal((rows, 32)).astype(np.float32)
        changed = [
            {**row, "vector": vector, "text": "overwritten", "kind": "changed"}
            for row, vector in zip(found, vectors, strict=True)
        ]
        connection.client.upsert(name, changed)
        connection.client.flush(name)


def holds(config: Config) -> dict[str, Any]:
    with milvus.connected(config.collection) as connection:
        return damages.rows_of(connection, str(milvus.served(connection, config.name)))


def test_rows_overwritten_under_the_same_hash_are_named_and_repaired(published: Config) -> None:
    overwrite(published, 50)
    with pytest.raises(GateError) as refused:
        verify(published)
    said = str(refused.value)
    assert "50 rows damaged: they differ in text (50), vector (50), kind (50) (first: item-0#0" in said
    assert "recall" not in said
    assert "index" not in said
    assert "vecbeam verify --repair" in said
    found = refused.value.report.verify
    assert (found.damaged, found.stale, found.compared) == (50, 0, "all columns")
    assert found.columns == {"text": 50, "vector": 50, "kind": 50}
    assert found.recall_at_10 is None

    with pytest.raises(GateError, match=r"damaged.*--repair"):
        sync(published)
    report = verify(published, repair=True)
    assert (report.verify.damaged, report.verify.found, report.verify.recall_at_10) == (0, 100, 1.0)
    assert report.chunks.embedded == 0
    assert holds(published) == damages.in_checkpoint(published)
    assert sync(published).verify.compared == "sampled"


def test_the_quick_comparison_says_what_it_did_not_look_at(published: Config, tmp_path: Path) -> None:
    overwrite(published, 50)
    with pytest.raises(GateError, match=r"recall@10 is 0\.\d+.*vectors were not compared.*without --quick") as refused:
        verify(published, quick=True)
    assert "raise" not in str(refused.value)
    found = refused.value.report.verify
    assert (found.damaged, found.stale, found.compared) == (0, 0, "ids and hashes")
    verify(published, repair=True)
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "vecbeam.yaml"), "--quick"])
    assert done.exit_code == 0
    assert "0 stale, 0 damaged (ids and hashes compared), recall@10 1.0000" in done.stdout
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "vecbeam.yaml")])
    assert "0 stale, 0 damaged (all columns compared), recall@10 1.0000" in done.stdout


def test_load_rebuild_replaces_a_damaged_collection_without_an_encoder(
    published: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(published, 100)
    before = holds(published)
    first = verify_fails(published).collection
    # Stopped before it is verified: searchers see what they saw, and the next rebuild continues with the same
    # collection.
    with monkeypatch.context() as patch:
        patch.setattr(Inspection, "gate", lambda *_, **__: (_ for _ in ()).throw(CollectionError("went away")))
        with pytest.raises(CollectionError, match="went away"):
            load(published, rebuild=True)
    assert holds(published) == before
    report = load(published, rebuild=True)
    assert report.collection == f"{first}_2"
    assert (report.chunks.embedded, report.chunks.loaded) == (0, 0)
    assert (report.verify.compared, report.verify.recall_at_10) == ("all columns", 1.0)
    assert holds(published) == damages.in_checkpoint(published)
    # Runs continue with what is served, and the previous one exists for a rollback.
    assert sync(published).collection == report.collection
    assert backfill(published).collection == report.collection
    # A second rebuild makes one more, from the checkpoint again.
    report = load(published, rebuild=True)
    assert (report.collection, report.chunks.loaded) == (f"{first}_3", 100)
    assert rollback(published).collection == f"{first}_2"


def verify_fails(config: Config) -> Any:
    with pytest.raises(GateError) as refused:
        verify(config)
    return refused.value.report


def test_load_rebuild_where_what_is_served_is_of_another_index_or_not_ours(published: Config, tmp_path: Path) -> None:
    other = configure(tmp_path, **METADATA, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}}, batch_rows=32)
    with pytest.raises(CollectionError, match="which differs from the configuration"):
        verify(other, repair=True)
    assert load(other, rebuild=True).verify.compared == "all columns"
    assert holds(other) == damages.in_checkpoint(other)
    with milvus.connected(other.collection) as connection:
        connection.client.create_collection("strange", dimension=4)
        connection.client.alter_alias("strange", "tested")
    assert load(other, rebuild=True).verify.found == 100
    assert holds(other) == damages.in_checkpoint(other)


def test_a_rollback_to_a_damaged_collection_is_refused(published: Config) -> None:
    overwrite(published, 5)
    rebuilt = load(published, rebuild=True).collection
    with pytest.raises(GateError, match=r"5 rows damaged: they differ in text \(5\), vector \(5\).*--rebuild"):
        rollback(published)
    assert sync(published).collection == rebuilt


def test_many_equal_vectors_are_named_where_recall_is_low(tmp_path: Path) -> None:
    """Pages without a text of their own: the graph of HNSW finds no way past them, with any parameters."""
    same = [{"id": f"same-{number}", "text": "[ scanned page without text ]"} for number in range(400)]
    items = [*same, *({"id": f"own-{number}", "text": text(number)} for number in range(80))]
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items)
    encoder = {"model": "fake", "dimensions": 8}
    for index in ({"type": "HNSW", "M": 4, "efConstruction": 40}, {"type": "HNSW", "M": 64, "efConstruction": 800}):
        config = configure(
            tmp_path,
            encoder=encoder,
            collection={"uri": "./milvus.db", "index": index},
            verify={"recall_at_10": 1.0, "sample": 400},
        )
        with pytest.raises(GateError, match=r"recall@10 is") as refused:
            backfill(config)
        said = str(refused.value)
        assert "8" in said.split("% of the sampled rows")[0][-2:]
        assert "one of them 400 rows" in said
        assert "{type: FLAT} or {type: IVF_FLAT}" in said
        assert "raise" not in said
    config = configure(tmp_path, encoder=encoder, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}})
    assert backfill(config).verify.recall_at_10 == 1.0


def test_a_low_recall_of_different_vectors_names_parameters_that_help(published: Config, tmp_path: Path) -> None:
    thin = {"uri": "./milvus.db", "index": {"type": "IVF_FLAT", "nlist": 64}, "search": {"nprobe": 1}}
    with pytest.raises(GateError, match=r"recall@10 is 0\.\d+.*raise collection.search.nprobe") as refused:
        load(configure(tmp_path, **METADATA, collection=thin, batch_rows=32))
    assert "repair" not in str(refused.value)
    wide = {**thin, "search": {"nprobe": 64}}
    assert load(configure(tmp_path, **METADATA, collection=wide, batch_rows=32)).verify.recall_at_10 == 1.0


def test_a_sync_looks_at_other_rows_each_time(published: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, snapshot, _ = open_snapshot(published)
    monkeypatch.setattr(row_sample, "ROWS", 20)
    monkeypatch.setattr(row_sample, "PARTS", 2)

    def chosen(seed: str) -> list[str]:
        return [row_id for rows in sample_rows(checkpoint, snapshot, seed) for row_id in rows.column("id").to_pylist()]

    assert (chosen("a"), len(chosen("a"))) == (chosen("a"), 20)
    assert len(set(chosen("a"))) == 20
    assert len({tuple(chosen(str(seed))) for seed in range(10)}) == 10
    everywhere = {row_id for seed in range(80) for row_id in chosen(str(seed))}
    assert len(everywhere) == 100
    monkeypatch.setattr(row_sample, "ROWS", 1000)
    monkeypatch.setattr(row_sample, "PARTS", 10)
    assert sorted(chosen("a")) == sorted(damages.in_checkpoint(published))


def test_a_sync_compares_all_columns_of_what_it_wrote(
    published: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a server, or a proxy before it, keeps something else than it was sent."""
    from transforms.milvus.rows import upsert

    items = [{"id": f"item-{number}", "text": text(number), "kind": "plain"} for number in range(100)]
    items[3]["text"] = "edited"
    write_jsonl(tmp_path / "corpus" / "items.jsonl", items)
    plainly = upsert.vectors_of
    monkeypatch.setattr(row_sample, "ROWS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(upsert, "vectors_of", lambda *given: plainly(*given) * np.float32(2))
        with pytest.raises(GateError, match=r"1 rows damaged: they differ in vector \(1\) \(first: item-3#0\)"):
            sync(published)
    verify(published, repair=True)
    sync(published)
    assert holds(published) == damages.in_checkpoint(published)


def test_every_damage_is_found_and_restored(tmp_path: Path) -> None:
    config = damages.prepare(tmp_path, "./milvus.db", rows=90)
    tally = damages.run(config, 28, seed=1)
    assert tally.made.total() == 28
    assert set(tally.made) == set(damages.KINDS)
    assert tally.whole, tally


@pytest.mark.server
def test_every_damage_is_found_and_restored_on_a_server(tmp_path: Path, milvus_server: Any) -> None:
    """A duplicate key as well, which a server allows."""
    from conftest import empty

    empty(milvus_server.uri)
    config = damages.prepare(tmp_path, milvus_server.uri, rows=60)
    tally = damages.run(config, 10, seed=2, twice=True)
    assert set(tally.made) == {*damages.KINDS, damages.TWICE}
    assert tally.whole, tally
    empty(milvus_server.uri)
