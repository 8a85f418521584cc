"""Indexes: built once, as configured, and found again after an interruption."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import pytest
from collection_data import all_rows, configuration, numbered, spec_of, unit_vectors
from milvus_server import Server
from pymilvus import MilvusException

from schemas.config import Collection
from schemas.errors import CollectionError
from transforms import milvus
from transforms.milvus import index_build
from transforms.milvus.small_segments import wait_replaced

ROWS = 1200
"""A server builds no index on fewer than 1,024."""

KINDS: list[tuple[str, dict[str, int]]] = [
    ("HNSW", {"M": 6, "efConstruction": 37}),
    ("IVF_FLAT", {"nlist": 33}),
    ("IVF_SQ8", {"nlist": 17}),
    ("FLAT", {}),
    ("AUTOINDEX", {}),
]


@pytest.fixture
def config(milvus_uri: str) -> Collection:
    return configuration(milvus_uri)


@pytest.fixture
def connection(config: Collection) -> Iterator[milvus.Milvus]:
    with milvus.connected(config) as opened:
        yield opened


def loaded(connection: milvus.Milvus, rows: int = ROWS, **keys: Any) -> Any:
    spec = spec_of(**keys)
    milvus.create(connection, spec, "load-one")
    milvus.upsert(connection, spec, numbered(rows, vectors=unit_vectors(rows)))
    return spec


def index_writes(connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("create_index", "drop_index"):
        method = getattr(connection.client, name)

        def noting(*args: Any, _name: str = name, _method: Any = method, **keys: Any) -> Any:
            calls.append(_name)
            return _method(*args, **keys)

        monkeypatch.setattr(connection.client, name, noting)
    return calls


def test_each_kind_of_index_is_built_as_configured_and_replaces_the_one_before(
    connection: milvus.Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(connection)
    calls = index_writes(connection, monkeypatch)
    for kind, parameters in KINDS:
        spec = spec_of(index_type=kind, index_parameters=parameters)
        milvus.finish(connection, spec)
        state = milvus.state(connection, spec.name)
        assert state is not None
        assert list(state.indexes) == ["vector"]
        assert state.index_built
        assert state.loaded
        assert (state.indexes["vector"].type, state.indexes["vector"].metric) == (kind, "COSINE")
        assert {key: state.indexes["vector"].parameters[key] for key in parameters} == parameters
        hits = milvus.search(connection, spec.name, unit_vectors(ROWS)[5], 3, index_type=kind)
        assert hits[0].id == "doc-5#0"
        assert hits[0].score == pytest.approx(1, abs=0.02)
    assert calls == ["create_index", *["drop_index", "create_index"] * 4]
    calls.clear()
    milvus.finish(connection, spec)
    assert calls == []


def test_another_metric_is_another_index(connection: milvus.Milvus) -> None:
    loaded(connection, rows=20)
    # Twice a vector of length 1 has product 2 with it, and squared distance 1.
    for metric, score in (("IP", 2), ("L2", 1)):
        spec = spec_of(index_type="FLAT", metric=metric)
        milvus.finish(connection, spec)
        hit = milvus.search(connection, spec.name, 2 * unit_vectors(20)[5], 1, index_type="FLAT")[0]
        assert (hit.id, hit.score) == ("doc-5#0", pytest.approx(score, abs=1e-4))


def test_an_index_of_an_empty_collection(connection: milvus.Milvus) -> None:
    spec = loaded(connection, rows=0)
    milvus.finish(connection, spec)
    assert milvus.count(connection, spec.name) == 0
    assert milvus.search(connection, spec.name, unit_vectors(1)[0], 3, index_type="HNSW") == []


def test_finishing_what_is_gone_says_so(connection: milvus.Milvus) -> None:
    with pytest.raises(CollectionError, match="docs_1"):
        milvus.finish(connection, spec_of())


def faiss_indexes(folder: Path) -> list[Any]:
    """The index files of a Lite database, opened."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "index" in str(path.relative_to(folder)):
            with contextlib.suppress(RuntimeError):  # no index of faiss
                found.append(faiss.read_index(str(path)))
    return found


def innermost(index: Any) -> Any:
    """What an index wraps. It lives as long as the wrapper is held."""
    while isinstance(index, (faiss.IndexIDMap, faiss.IndexPreTransform)):
        index = faiss.downcast_index(index.index)
    return faiss.downcast_index(index)


@pytest.mark.parametrize(("kind", "parameters"), KINDS[:3])
def test_build_parameters_stand_in_the_index_file_of_lite(
    tmp_path: Path, kind: str, parameters: dict[str, int]
) -> None:
    config = configuration(str(tmp_path / "milvus.db"))
    with milvus.connected(config) as connection:
        spec = loaded(connection, index_type=kind, index_parameters=parameters)
        milvus.finish(connection, spec)
    milvus.release(config)
    (whole,) = faiss_indexes(tmp_path)
    index = innermost(whole)
    assert index.ntotal == ROWS
    if kind == "HNSW":
        # faiss gives the upper layers M neighbours a node, and the lowest twice that.
        assert index.hnsw.nb_neighbors(1) == parameters["M"]
        assert index.hnsw.efConstruction == parameters["efConstruction"]
    else:
        assert index.nlist == parameters["nlist"]


@pytest.mark.server
def test_small_segments_of_a_new_collection_are_merged_before_anything_is_measured(
    milvus_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server does it later by itself, and a graph over all rows finds less than several small ones."""
    config = configuration(milvus_server.uri)
    vectors = unit_vectors(3 * ROWS)
    rows = numbered(3 * ROWS, vectors=vectors)
    with milvus.connected(config) as connection:
        client = connection.client
        spec = spec_of()
        milvus.create(connection, spec, "load-one")
        for start in range(0, 3 * ROWS, ROWS):
            milvus.upsert(connection, spec, rows.slice(start, ROWS))
            milvus.flush(connection, spec.name)
        assert len(client.list_persistent_segments(spec.name)) == 3
        # A busy server ends a request without a merge: here that of a collection that has nothing to merge.
        other = replace(spec, name=f"{spec.name}_other")
        milvus.create(connection, other, "load-two")
        compact, asked = client.compact, iter([other.name])
        monkeypatch.setattr(client, "compact", lambda name, **given: compact(next(asked, name), **given))
        milvus.finish(connection, spec)
        assert next(asked, None) is None
        monkeypatch.setattr(client, "compact", compact)
        milvus.drop(connection, other.name)
        assert [one.num_rows for one in client.list_loaded_segments(spec.name)] == [3 * ROWS]
        assert len(all_rows(connection, spec.name)) == 3 * ROWS
        state = milvus.state(connection, spec.name)
        assert state is not None
        assert (state.index_built, state.indexes["vector"].rows) == (True, 3 * ROWS)

        def refused(*_: Any, **__: Any) -> None:
            raise MilvusException(message="permission denied")

        monkeypatch.setattr(client, "compact", refused)
        milvus.finish(connection, spec)  # one segment is not merged
        milvus.upsert(connection, spec, numbered(ROWS, vectors=vectors[:ROWS], start=3 * ROWS))
        assert not caplog.messages
        milvus.finish(connection, spec)  # an account may be refused
        [said] = caplog.messages
        assert "small segments are not merged, so recall may change later" in said
        assert "permission denied" in said
        monkeypatch.setattr(client, "list_loaded_segments", refused)
        wait_replaced(connection, spec.name, [1])
        assert "Milvus does not tell which segments it searches: " in caplog.messages[-1]
        milvus.set_ready(connection, spec.name)
        monkeypatch.setattr(index_build, "merge_segments", refused)
        milvus.finish(connection, spec)
        milvus.drop(connection, spec.name)


KILLED = """
import sys
from collection_data import configuration, spec_of
from transforms import milvus

config = configuration(sys.argv[1])
connection = milvus.connect(config)
print("go", flush=True)
milvus.finish(connection, spec_of(dimensions=256))
"""


def test_a_build_killed_on_lite_is_completed_by_the_next(tmp_path: Path) -> None:
    config = configuration(str(tmp_path / "milvus.db"))
    rows = 3000
    vectors = unit_vectors(rows, 256)
    spec = spec_of(dimensions=256)
    with milvus.connected(config) as connection:
        milvus.create(connection, spec, "load-one")
        milvus.upsert(connection, spec, numbered(rows, vectors=vectors))
    milvus.release(config)
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, str(Path(tests).parent)])}
    for wait_s in (0.0, 0.05, 0.15, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, config.uri], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with milvus.connected(config) as connection:
        milvus.finish(connection, spec)
        state = milvus.state(connection, spec.name)
        assert state is not None
        assert state.index_built
        assert list(state.indexes) == ["vector"]
        assert state.indexes["vector"].rows == rows
        assert len(all_rows(connection, spec.name)) == rows
        hits = milvus.search(connection, spec.name, vectors[77], 1, index_type="HNSW", search_parameters={"ef": 200})
        assert hits[0].id == "doc-77#0"
    milvus.release(config)
