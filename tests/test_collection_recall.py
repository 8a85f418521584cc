"""Recall against exact search: computed manually, in parts, with ties, and with the parameters of the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from collection_data import SPEC, configuration, numbered, sliced, spec_of, unit_vectors

from schemas.config import Collection
from schemas.milvus import CollectionSpec
from transforms import milvus
from transforms.milvus import exact_answers
from transforms.milvus import recall as recall_module
from transforms.milvus.nearest import Hit
from transforms.milvus.recall import RepeatedRecall, measure_recall

ROWS = 3000
DIMENSIONS = 48

CONFIG = configuration("unused.db")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], list[str]]], None]:
    """Replaces Milvus: returns a test's hits for each query."""

    def install(answer: Callable[[int], list[str]]) -> None:
        def search_many(*args: Any, **_: Any) -> list[list[Hit]]:
            return [[Hit(row_id, 0.0) for row_id in answer(query)] for query in range(len(args[2]))]

        monkeypatch.setattr(recall_module, "search_many", search_many)

    return install


def measured(table: pa.Table, spec: CollectionSpec, part_rows: int = 100, sample: int = 10**6) -> float:
    columns = table.select(["id", "vector"])
    found = measure_recall(None, spec, lambda: sliced(columns, part_rows), table.num_rows, sample)
    assert found is not None
    return found.at_10


def test_recall_of_no_row_is_none() -> None:
    assert measure_recall(None, SPEC, lambda: sliced(numbered(0), 10), 0, 10) is None


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_equal_vectors_are_counted(answers: Any, metric: str) -> None:
    """40 rows of one vector, 8 of another and 52 of their own; lengths differ, which COSINE does not see."""
    lengths = np.random.default_rng(1).uniform(0.5, 3, (54, 1)).astype(np.float32)
    own = unit_vectors(54, seed=4) * lengths
    vectors = np.concatenate([np.repeat(own[:1], 40, axis=0), np.repeat(own[1:2], 8, axis=0), own[2:]])
    answers(lambda query: exact(vectors, query, metric, 10))
    columns = numbered(100, vectors=vectors).select(["id", "vector"])
    spec = spec_of(index_type="FLAT", metric=metric)
    found = measure_recall(None, spec, lambda: sliced(columns, 7), 100, 100)
    assert found is not None
    assert (found.equal_share, found.most_equal) == (0.4, 40)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_a_second_measurement_has_the_exact_answers_of_the_first(answers: Any, metric: str) -> None:
    """Indexes that find other rows each time; many rows are equal."""
    random = np.random.default_rng(2)
    vectors = unit_vectors(30, seed=5)[random.integers(0, 30, 200)] * random.uniform(0.5, 2, (200, 1))
    columns = numbered(200, vectors=vectors.astype(np.float32)).select(["id", "vector"])
    spec = spec_of(index_type="FLAT", metric=metric)
    repeated = RepeatedRecall(lambda: sliced(columns, 17), 200, 60)
    seen = []
    for wrong in (0, 3, 9, 1, 11):

        def found(query: int, wrong: int = wrong) -> list[str]:
            order = exact(vectors, query, metric, 200)
            return [*order[: 11 - wrong], *order[200 - wrong :]]

        answers(found)
        again = repeated.measure(None, spec, spec.vectors[0])
        assert again == measure_recall(None, spec, lambda: sliced(columns, 50), 200, 60)
        assert again is not None
        seen.append(again.at_10)
    assert len(set(seen)) > 2


def exact(vectors: np.ndarray[Any, Any], query: int, metric: str, k: int) -> list[str]:
    wide = vectors.astype(np.float64)
    if metric == "L2":
        scores = -((wide - wide[query]) ** 2).sum(axis=1)
    elif metric == "IP":
        scores = wide @ wide[query]
    else:
        scores = wide @ wide[query] / np.linalg.norm(wide, axis=1)
    return [f"doc-{i}#0" for i in np.argsort(-scores, kind="stable")[:k]]


def others(vectors: np.ndarray[Any, Any], query: int, metric: str = "COSINE") -> list[str]:
    """All other rows, the nearest first."""
    return [one for one in exact(vectors, query, metric, len(vectors)) if one != f"doc-{query}#0"]


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
@pytest.mark.parametrize("wrong", [0, 1, 4])
@pytest.mark.parametrize("finds_itself", [True, False])
def test_recall_is_the_share_of_right_hits(answers: Any, metric: str, wrong: int, finds_itself: bool) -> None:
    """With inner products, a query's own row need not be among its nearest."""
    lengths = np.random.default_rng(1).uniform(0.5, 3, (250, 1)).astype(np.float32)
    vectors = unit_vectors(250) * lengths

    def answer(query: int) -> list[str]:
        order = others(vectors, query, metric)
        found = [*order[: 10 - wrong], *order[len(order) - wrong :]]
        return [f"doc-{query}#0", *found] if finds_itself else found

    answers(answer)
    spec = spec_of(index_type="FLAT", metric=metric)
    assert measured(numbered(250, vectors=vectors), spec) == pytest.approx(1 - wrong / 10)


def test_a_hit_given_twice_counts_once_and_a_stranger_never(answers: Any) -> None:
    vectors = unit_vectors(50)
    answers(lambda query: [others(vectors, query)[0]] * 5 + ["stranger#0"] * 5)
    assert measured(numbered(50, vectors=vectors), spec_of(index_type="FLAT")) == pytest.approx(0.1)


def test_any_of_many_equal_rows_is_right(answers: Any) -> None:
    """A text that is in the corpus 40 times: which of them the index returns says nothing about it."""
    vectors = np.concatenate([np.repeat(unit_vectors(1, seed=3), 40, axis=0), unit_vectors(60, seed=4)])
    answers(lambda query: [f"doc-{i}#0" for i in range(29, 40)] if query < 40 else exact(vectors, query, "COSINE", 11))
    assert measured(numbered(100, vectors=vectors), spec_of(index_type="FLAT"), part_rows=7) == 1.0


def test_fewer_than_ten_rows(answers: Any) -> None:
    vectors = unit_vectors(4)
    answers(lambda query: exact(vectors, query, "COSINE", 4))
    assert measured(numbered(4, vectors=vectors), spec_of(index_type="FLAT")) == 1.0
    answers(lambda query: exact(vectors, query, "COSINE", 3))
    assert measured(numbered(4, vectors=vectors), spec_of(index_type="FLAT")) == pytest.approx(2 / 3)


def test_a_single_row_is_found_or_not(answers: Any) -> None:
    for found, recall in ((["doc-0#0"], 1.0), ([], 0.0)):
        answers(lambda _, found=found: found)  # type: ignore[misc]
        assert measured(numbered(1), spec_of(index_type="FLAT")) == recall


def test_the_size_of_parts_and_of_steps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit_vectors(230)
    table = numbered(230, vectors=vectors)
    asked: list[np.ndarray[Any, Any]] = []

    def search_many(*args: Any, **_: Any) -> list[list[Hit]]:
        asked.append(args[2])
        return [[Hit(f"doc-{i}#0", 0.0) for i in range(10)] for _ in args[2]]

    monkeypatch.setattr(recall_module, "search_many", search_many)
    first = measured(table, spec_of(index_type="FLAT"), sample=50)
    monkeypatch.setattr(exact_answers, "CELLS", 50 * 3)
    for part_rows in (1, 7, 230, 1000):
        assert measured(table, spec_of(index_type="FLAT"), part_rows=part_rows, sample=50) == first
    assert all(np.array_equal(queries, asked[0]) for queries in asked)
    assert asked[0].shape == (50, 8)


@pytest.fixture
def config(milvus_uri: str) -> Collection:
    return configuration(milvus_uri)


@pytest.fixture
def connection(config: Collection) -> Iterator[milvus.Milvus]:
    with milvus.connected(config) as opened:
        yield opened


def test_recall_moves_with_the_parameters_of_the_index(connection: milvus.Milvus) -> None:
    """So they reach it, when it is built and when it is searched."""
    table = numbered(ROWS, vectors=unit_vectors(ROWS, DIMENSIONS))

    def recall(kind: str, build: dict[str, int], search: dict[str, int]) -> float:
        spec = spec_of(dimensions=DIMENSIONS, index_type=kind, index_parameters=build, search_parameters=search)
        if not milvus.exists(connection, spec.name):
            milvus.create(connection, spec, "load-one")
            milvus.upsert(connection, spec, table)
        milvus.finish(connection, spec)
        columns = table.select(["id", "vector"])
        found = milvus.measure_recall(connection, spec, lambda: sliced(columns, 1000), ROWS, sample=100)
        assert found is not None
        return found.at_10

    coarse = recall("IVF_FLAT", {"nlist": 4}, {"nprobe": 1})
    fine = recall("IVF_FLAT", {"nlist": 300}, {"nprobe": 1})
    assert fine < coarse - 0.1
    assert recall("IVF_FLAT", {"nlist": 300}, {"nprobe": 300}) == 1.0

    thin = recall("HNSW", {"M": 2, "efConstruction": 10}, {"ef": 10})
    assert recall("HNSW", {"M": 2, "efConstruction": 10}, {"ef": 400}) > thin + 0.1
    thick = recall("HNSW", {"M": 32, "efConstruction": 200}, {"ef": 10})
    assert thick > thin + 0.2

    # Every cell is searched, so what is lost here is lost to the eight bits.
    assert recall("IVF_SQ8", {"nlist": 16}, {"nprobe": 16}) > 0.9
    assert recall("FLAT", {}, {}) == 1.0
