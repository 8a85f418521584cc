"""`vecbeam plan`: what it says is what the run then does, and it writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from corpora import configure, text, write_jsonl
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.run.plan_text import text as page
from pipelines.sync import sync
from schemas.errors import GateError, RejectsError
from schemas.milvus import index_bytes
from transforms import milvus

pytestmark = pytest.mark.usefixtures("lite_released")


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, Any]]:
    found = [{"id": f"item-{number}", "text": text(number)} for number in range(200)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", found)
    return found


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes())
        for f in folder.rglob("*")
        if f.is_file() and "milvus.db" not in f.parts
    }


def test_a_first_run(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, runner={"name": "local", "cost": {"workers": 4, "usd_per_hour": 3.6}})
    before = files_of(tmp_path)
    found = plan(config)
    assert files_of(tmp_path) == before
    assert not (tmp_path / "milvus.db").exists()
    assert (found.action, found.items.new, found.tokens.error) == ("backfill", 200, 0.0)
    assert found.pool is not None
    assert found.pool.usd == pytest.approx(4 * found.pool.seconds * 0.001, abs=0.001)
    report = sync(config)
    assert (found.tokens.value, found.chunks.value) == (report.tokens.embedded, report.chunks.embedded)
    assert found.milvus.rows == report.verify.found
    assert abs(found.checkpoint_bytes - report.bytes.checkpoint) < 0.25 * report.bytes.checkpoint


def test_changes_and_the_exit_code(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    path = str(tmp_path / "vecbeam.yaml")
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["plan", path, "--exit-code"])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "nothing to do")
    items[3]["text"] = "changed"
    items[5]["id"] = "moved"
    del items[7]
    items.append({"id": "new", "text": "new"})
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    before = files_of(tmp_path)
    done = CliRunner().invoke(app, ["plan", path, "--exit-code", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["action"], files_of(tmp_path)) == (10, "sync", before)
    assert found["items"] == {"new": 1, "changed": 1, "moved": 1, "unchanged": 197, "deleted": 1, "rejected": 0}
    report = sync(config)
    assert report.plan is not None
    assert report.plan.items == found["items"]
    assert (report.items.new, report.items.changed, report.items.moved, report.items.deleted) == (1, 1, 1, 1)
    shown = CliRunner().invoke(app, ["report", path]).stdout
    assert "expected" in shown


def test_a_few_changes_of_a_large_file(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path, corpus={"paths": ["corpus/*"], "metadata": {"section": "string"}})
    sync(config)
    for number in range(50):
        items[number]["section"] = "doc"
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    # The rows are written again, with the vectors that they have.
    found = plan(config)
    assert (found.items.changed, found.chunks.value, found.tokens.value) == (50, 0, 0)
    assert (found.action, found.milvus.rows, found.seconds.measured) == ("sync", 200, "nothing to embed")
    report = sync(config)
    assert report.plan is not None
    assert (report.chunks.embedded, report.plan.chunks, report.chunks.loaded) == (0, 0, 50)
    for number in range(3):
        items[number]["text"] = f"short {number}"
    items.append({"id": "copy", "text": items[9]["text"]})
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    # Of these alone, whatever the length of the others.
    found = plan(config)
    assert (found.items.new, found.items.changed, found.chunks.value, found.milvus.rows) == (1, 3, 4, 201)
    report = sync(config)
    assert report.plan is not None
    assert (report.chunks.embedded, report.plan.chunks) == (4, 4)
    assert (found.tokens.value, found.tokens.error) == (report.tokens.embedded, 0.0)


def test_another_index_and_another_model(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    sync(configure(tmp_path))
    flat = configure(tmp_path, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}})
    found = plan(flat)
    assert (found.action, found.items.new, found.milvus.index_bytes) == ("reindex", 0, 200 * 32 * 4)
    assert "index (HNSW" in found.milvus.reasons[0]
    reindex(flat)
    assert plan(flat).action == "nothing"
    other = plan(configure(tmp_path, encoder={"model": "fake", "dimensions": 16}))
    assert (other.action, other.items.new) == ("reindex", 200)
    assert "dimensions: 16 here, 32 there" in other.milvus.reasons[0]


def test_more_deletions_than_allowed(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:100])
    path = str(tmp_path / "vecbeam.yaml")
    milvus.release(config.collection)
    done = CliRunner().invoke(app, ["plan", path, "--exit-code", "--set", "batch_rows=100"])
    # A plan is not a run: it says how the run would end, and that there is something to do.
    assert done.exit_code == 10
    assert "outcome     exit code 3, GateError: 100 of 200 items" in done.stdout
    assert done.stdout.splitlines()[-1] == f"only after that: vecbeam sync {path} --set batch_rows=100"
    outcome = plan(config).outcome
    with pytest.raises(GateError) as refused:
        sync(config)
    assert outcome.error is not None
    assert outcome.error.model_dump(by_alias=True) == refused.value.facts()
    allowed = plan(config, allow_deletes=True, words=["my vecbeam.yaml"])
    assert (allowed.items.deleted, allowed.outcome.exit_code) == (100, 0)
    assert allowed.command == "vecbeam sync 'my vecbeam.yaml' --allow-deletes"


def test_a_lost_checkpoint_does_not_tell_what_is_deleted(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    shutil.rmtree(tmp_path / "checkpoint")
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:180])
    found = plan(config)
    assert (found.items.deleted, found.outcome.exit_code) == (0, 0)
    assert "holds (200 rows): a run deletes those that are not in the corpus" in " ".join(found.warnings)
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items[:100])
    foreseen = plan(config).outcome
    with pytest.raises(GateError) as refused:
        sync(config)
    assert foreseen.exit_code == refused.value.exit_code == 3
    assert foreseen.error is not None
    assert foreseen.error.message == refused.value.message
    assert "100 of 200 rows" in foreseen.error.message
    assert plan(config, allow_deletes=True).outcome.exit_code == 0


def test_rejects_and_what_they_lead_to(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    broken = ['{"id": "empty", "text": " "}', "{broken", json.dumps({"id": "x" * 600, "text": "long id"})]
    (tmp_path / "corpus" / "b.jsonl").write_text("\n".join(broken) + "\n")
    config = configure(tmp_path)
    first = plan(config)
    wanted = {"EmptyText": 1, "IdTooLong": 1, "InvalidJson": 1}
    assert (first.rejects, first.items.new, first.items.rejected) == (wanted, 200, 3)
    assert [reject.error for reject in first.rejected] == ["EmptyText", "InvalidJson"]
    assert (first.outcome.exit_code, first.outcome.served) == (4, True)
    with pytest.raises(RejectsError) as over:
        sync(config)
    assert (over.value.report.rejects, over.value.report.items.new) == (wanted, 200)
    assert first.outcome.error is not None
    assert first.outcome.error.message.split(";")[0] == over.value.message.split(";")[0]
    shown = page(first)
    assert "3 rejected" in shown
    assert f"{tmp_path / 'corpus' / 'b.jsonl'}, line 2: InvalidJson: " in shown
    assert shown.splitlines()[-1] == "run: vecbeam backfill"
    # Over existing parts, the same; and if more fail than the limit allows, the run would be refused.
    assert plan(config).rejects == wanted
    # Rejects of files that did not change count as well.
    write_jsonl(tmp_path / "corpus" / "c.jsonl", [{"id": "another", "text": "another"}])
    assert (plan(config).rejects, plan(config).items.new) == (wanted, 1)


def test_dropped_tokens_are_foreseen(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    items[0]["text"] = " ".join(f"word{number}" for number in range(400))
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    config = configure(tmp_path, chunk=False)
    found = plan(config)
    with pytest.raises(RejectsError, match="tokens were dropped") as over:
        sync(config)
    assert found.dropped.value == over.value.report.tokens.dropped > 0
    assert found.outcome.error is not None
    assert (found.outcome.exit_code, found.outcome.error.remedy) == (4, over.value.remedy)
    assert "dropped     " in page(found)


def test_nothing_empty_and_no_dict_in_a_sentence(tmp_path: Path, items: list[dict[str, Any]]) -> None:
    config = configure(tmp_path)
    sync(config)
    shown = page(plan(config))
    assert "to embed" not in shown
    assert "tokens/s" not in shown
    assert "HNSW COSINE, M 8, efConstruction 64" in shown
    flat = plan(configure(tmp_path, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}}))
    assert flat.seconds.total > 0
    for sentence in (page(flat), shown):
        assert not set("{}") & set(sentence)
    assert "index (HNSW COSINE, M 8, efConstruction 64; configured is FLAT COSINE)" in page(flat)


@pytest.mark.parametrize(
    ("kind", "parameters", "made"),
    [
        ("FLAT", {}, lambda d: faiss.IndexFlatIP(d)),
        ("HNSW", {"M": 16}, lambda d: faiss.IndexHNSWFlat(d, 16)),
        ("HNSW", {"M": 48}, lambda d: faiss.IndexHNSWFlat(d, 48)),
        ("IVF_FLAT", {"nlist": 64}, lambda d: faiss.index_factory(d, "IVF64,Flat")),
        ("IVF_SQ8", {"nlist": 64}, lambda d: faiss.index_factory(d, "IVF64,SQ8")),
    ],
)
def test_the_memory_of_an_index_is_that_of_faiss(kind: str, parameters: dict[str, int], made: Any) -> None:
    rows, dimensions = 5000, 96
    index = made(dimensions)
    vectors = np.random.default_rng(0).standard_normal((rows, dimensions)).astype(np.float32)
    index.train(vectors)
    index.add(vectors)
    size = len(faiss.serialize_index(index))
    assert index_bytes(kind, parameters, rows, dimensions) == pytest.approx(size, rel=0.05)
