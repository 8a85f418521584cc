"""`collection.index: auto`: the choice by measurement, the promise on the whole collection, and what follows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from blocked import run_without
from collection_data import SPEC
from corpora import configure, text, write_jsonl
from milvus_server import Server
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.report import report as write_report
from pipelines.run.plan_text import text as plan_text
from pipelines.search import search
from pipelines.steps.publish import promised_recall, publication
from pipelines.steps.publish.promised_recall import FEW, PromisedRecall
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, Verify
from schemas.config.loader import load_config
from schemas.errors import CollectionError, ConfigurationError, GateError
from schemas.milvus import CollectionSpec
from schemas.run_report import Report
from transforms import milvus
from transforms.explore.candidate import Candidate
from transforms.explore.index_sweep import sweep
from transforms.explore.search_width import CLOSE, narrowest
from transforms.explore.unseen_queries import UnseenRecall

pytest.importorskip("faiss", reason="the extra explore is not installed")
TYPES = ["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"]


def vectors(rows: int = 3_000, dimensions: int = 24) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(7)
    middles = random.standard_normal((40, dimensions))
    return np.asarray(middles[random.integers(0, 40, rows)] + random.standard_normal((rows, dimensions)), np.float32)


def write_corpus(folder: Path, rows: int) -> None:
    records = [{"id": f"doc{n}", "text": text(n), "section": "games" if n % 10 == 0 else "admin"} for n in range(rows)]
    write_jsonl(folder / "corpus" / "a.jsonl", records)


def configured(folder: Path, index: Any, uri: str = "./milvus.db", **changes: Any) -> Config:
    corpus = {"paths": ["corpus/*"], "metadata": {"section": "string"}}
    collection = {"uri": uri, "index": index}
    return configure(folder, chunk=False, corpus=corpus, collection=collection, **changes)


def chosen(config: Config) -> dict[str, Any]:
    with milvus.connected(config.collection) as connection:
        state = milvus.state(connection, milvus.served(connection, config.name) or "")
    assert state is not None
    index = state.indexes["vector"]
    return {**json.loads(state.properties["vecbeam.index"]), "built": index.type, "with": index.parameters}


def test_the_best_candidate_is_the_cheapest_that_keeps_recall_within_memory() -> None:
    found = sweep([(vectors(), "COSINE")], 3_000, TYPES, 0.95)
    good = [one for one in found if one.keeps]
    assert {one.type for one in found} == set(TYPES)
    assert all(one.recall >= 0.95 for one in good)
    assert good[0].cost <= min(one.cost for one in good) * 1.05
    assert found == sweep([(vectors(), "COSINE")], 3_000, TYPES, 0.95)
    small = sweep([(vectors(), "COSINE")], 3_000, TYPES, 0.9, memory=160_000)
    assert {one.type for one in small if one.keeps} == {"IVF_SQ8"}
    assert not any(one.keeps for one in sweep([(vectors(), "L2")], 3_000, TYPES, 0.9, memory=10))


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_rounded_scores_of_an_index_do_not_count_as_misses(metric: str) -> None:
    found = sweep([(vectors(1_000), metric)], 1_000, ["IVF_FLAT", "IVF_SQ8"], 0.97)
    assert all(one.keeps for one in found)


def test_a_wider_search_costs_what_was_counted() -> None:
    found = sweep([(vectors(1_000), "COSINE")], 1_000, ["HNSW", "IVF_FLAT"], 0.5)
    for one in found:
        [name] = one.search
        for value, cost in one.costs:
            assert one.searched({name: value}).cost == cost
        last, most = one.costs[-1]
        assert list(one.costs) == sorted(one.costs)
        assert one.searched({name: 2 * last}).cost == 2 * most
    assert {one.parameters["nlist"] for one in found if one.type == "IVF_FLAT"} == {128, 32}
    plain = Candidate("HNSW", {}, {"ef": 10}, 0.9, 300, 1)
    assert (plain.searched({"ef": 20}).cost, plain.searched({"ef": 10})) == (600, plain)


@pytest.mark.parametrize("metric", ["COSINE", "IP", "L2"])
def test_an_exact_search_is_all_that_a_recall_of_one_of_few_rows_needs(metric: str) -> None:
    found = sweep([(vectors(12), metric)], 12, TYPES, 1.0)
    assert found[0].keeps
    assert found[0].recall == 1.0
    flat = next(one for one in found if one.type == "FLAT")
    assert (flat.recall, flat.cost) == (1.0, 12 * 24 * 4)


def test_two_vectors_have_one_index_that_keeps_the_recall_of_both() -> None:
    hard, easy = np.random.default_rng(1).standard_normal((3_000, 96)).astype(np.float32), vectors()
    alone = sweep([(easy, "COSINE")], 3_000, ["HNSW"], 0.995)
    both = sweep([(easy, "COSINE"), (hard, "COSINE")], 3_000, ["HNSW"], 0.995)
    widest = {one.parameters["M"]: one.search["ef"] for one in both}
    assert all(widest[one.parameters["M"]] >= one.search["ef"] for one in alone)
    assert any(widest[one.parameters["M"]] > one.search["ef"] for one in alone)
    assert both[0].memory > alone[0].memory


@pytest.mark.parametrize("start", [10, 37, 512])
@pytest.mark.parametrize("wanted", [1, 10, 11, 40, 181, 4000, 4096])
def test_the_narrowest_search_is_near_the_least_that_keeps(start: int, wanted: int) -> None:
    tried: list[int] = []

    def keeps(search: dict[str, int]) -> bool:
        tried.append(search["ef"])
        return search["ef"] >= wanted

    found = narrowest("HNSW", {"ef": start}, 1, keeps)
    assert found is not None
    assert max(10, wanted) <= found["ef"] <= max(10, wanted * CLOSE)
    assert len(tried) == len(set(tried)) <= 16


def test_the_narrowest_search_ends_at_the_limits() -> None:
    assert narrowest("FLAT", {}, 1, lambda search: not search) == {}
    assert narrowest("FLAT", {}, 1, lambda _: False) is None
    assert narrowest("HNSW", {"ef": 16}, 1, lambda _: False) is None
    assert narrowest("IVF_FLAT", {"nprobe": 48}, 96, lambda search: search["nprobe"] >= 96) == {"nprobe": 96}
    assert narrowest("IVF_FLAT", {"nprobe": 128}, 96, lambda search: search["nprobe"] >= 97) is None
    assert narrowest("IVF_FLAT", {"nprobe": 8}, 96, lambda _: True) == {"nprobe": 1}


@pytest.mark.parametrize("place", ["lite", pytest.param("server", marks=pytest.mark.server)])
def test_a_chosen_index_keeps_its_promise_and_stays(tmp_path: Path, place: str, request: pytest.FixtureRequest) -> None:
    uri = "./milvus.db"
    if place == "server":
        server: Server = request.getfixturevalue("milvus_server")
        uri = server.uri
    write_corpus(tmp_path, 600)
    promise = {"type": "auto", "recall_at_10": 0.97, "filters": ['section == "games"']}
    config = configured(tmp_path, promise, uri, name=f"chosen_{place}")
    assert "auto, chosen by measurement after the embedding" in plan_text(plan(config))
    report = backfill(config)
    assert report.verify.published
    assert 'under section == "games"' in report.verify.index_chosen
    measured = report.measured_indexes
    sample = [one for one in measured if one.of == "sample"]
    assert {one.rows for one in sample} == {600}
    assert len({(one.type, *one.parameters.items()) for one in sample}) >= 4
    served = [one for one in measured if one.of == "collection"]
    assert {one.filter for one in served} == {"", 'section == "games"'}
    assert served[-1].recall_at_10 == report.verify.recall_at_10
    if place == "lite":
        page = tmp_path / "page.html"
        write_report(config, html=page)
        rows = re.findall(r"<td>sample, 600 rows</td>", page.read_text())
        assert len(rows) == len({one.model_dump_json() for one in sample})
        assert "<h2>Recall@10 by index</h2>" in page.read_text()
    found = chosen(config)
    assert found["built"] == found["type"]
    assert min(found["recalls"].values()) >= 0.97
    assert set(found["recalls"]) == {"", 'section == "games"'}
    assert search(config, text(5), k=1)[0]["item_id"] == "doc5"
    assert plan(config).action == "nothing"
    assert backfill(config).collection == report.collection
    assert reindex(config).collection == report.collection
    kept = verify(config)
    assert re.fullmatch(r'[01]\.\d{4}, [01]\.\d{4} under section == "games"; promised 0\.97', kept.verify.promise)
    assert {one.filter for one in kept.measured_indexes if one.unseen_at_10 is not None} == {"", 'section == "games"'}
    assert verify(config, quick=True).verify.promise == ""
    write_corpus(tmp_path, 620)
    assert sync(config).collection == report.collection  # the choice stays with the collection
    assert chosen(config) == found
    again = load(config, rebuild=True)
    assert again.collection != report.collection
    assert again.verify.index_chosen
    # Another promise is another index.
    other = configured(tmp_path, {**promise, "recall_at_10": 0.99}, uri, name=f"chosen_{place}")
    with pytest.raises(CollectionError, match="index \\(auto, and the one there was not chosen for what is configured"):
        sync(other)
    planned = plan(other)
    assert planned.action == "reindex"
    assert len(planned.milvus.candidates) >= 4
    assert any("FLAT: recall@10 1.0000" in one for one in planned.milvus.candidates)
    assert reindex(other).collection != again.collection
    assert chosen(other)["promise"]["recall_at_10"] == 0.99
    milvus.release(config.collection)


LISTS = {"nlist": 16}
LINKS = {"M": 8, "efConstruction": 100}


@pytest.mark.parametrize(
    ("costs", "nprobe", "more", "again", "ef", "built", "wanted"),
    [
        # IVF_FLAT needs `nprobe` instead of 1, so it costs so many times 100; HNSW needs `ef` instead of 10.
        # Few queries can't tell; many need a wider `nprobe` by `more`, and by `again` once it is built a second time.
        ((100, 200), 2, 0, 0, 10, ["IVF_FLAT"], ("IVF_FLAT", {"nprobe": 2})),
        ((100, 200), 3, 0, 0, 10, ["IVF_FLAT", "HNSW"], ("HNSW", {"ef": 10})),
        ((100, 200), 8, 0, 0, 48, ["IVF_FLAT", "HNSW", "IVF_FLAT"], ("IVF_FLAT", {"nprobe": 8})),
        ((100, 200), 8, 0, 2, 48, ["IVF_FLAT", "HNSW", "IVF_FLAT"], ("IVF_FLAT", {"nprobe": 10})),
        ((100, 200), 8, 0, -3, 48, ["IVF_FLAT", "HNSW", "IVF_FLAT"], ("IVF_FLAT", {"nprobe": 8})),
        ((100, 200), 99, 0, 0, 24, ["IVF_FLAT", "HNSW"], ("HNSW", {"ef": 24})),
        ((100, 900), 2, 1, 0, 10, ["IVF_FLAT"], ("IVF_FLAT", {"nprobe": 3})),
    ],
)
def test_an_index_that_needs_a_much_wider_search_is_held_against_the_next(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    costs: tuple[int, int],
    nprobe: int,
    more: int,
    again: int,
    ef: int,
    built: list[str],
    wanted: tuple[str, dict[str, int]],
) -> None:
    """Real indexes in Milvus Lite; what their recalls are is planted."""
    orders: list[str] = []
    finish = milvus.finish

    def recall(_: PromisedRecall, spec: CollectionSpec, filter: str, queries: int) -> tuple[float, float]:
        [(name, value)] = spec.vectors[0].search_parameters.items()
        wider = again if orders.count("IVF_FLAT") > 1 else 0
        if queries == 20:
            return (0.98, 0.02) if value >= {"nprobe": nprobe + wider, "ef": ef}[name] else (0.5, 0.02)
        return (0.98, 0.02 if name == "nprobe" and value < nprobe + more else 0.005)

    def noting(connection: milvus.Milvus, spec: CollectionSpec) -> Any:
        orders.append(spec.vectors[0].index_type)
        return finish(connection, spec)

    def planted(*_: object) -> list[Candidate]:
        return [
            Candidate("IVF_FLAT", LISTS, {"nprobe": 1}, 0.97, costs[0], 1, keeps=True),
            Candidate("HNSW", LINKS, {"ef": 10}, 0.97, costs[1], 1, keeps=True),
        ]

    monkeypatch.setattr(PromisedRecall, "_recall", recall)
    monkeypatch.setattr(promised_recall, "FEW", 20)
    monkeypatch.setattr(milvus, "finish", noting)
    monkeypatch.setattr(publication, "choose", planted)
    write_corpus(tmp_path, 60)
    config = configured(tmp_path, {"type": "auto", "recall_at_10": 0.97}, verify={"recall_at_10": 0.1, "sample": 20})
    assert backfill(config).verify.published
    found = chosen(config)
    assert (found["type"], found["search"]) == wanted
    assert found["built"] == wanted[0]
    assert [kind for kind in orders if kind != "AUTOINDEX"][-len(built) :] == built
    milvus.release(config.collection)


@pytest.mark.parametrize(
    ("recall", "sizes", "keeps"),
    [
        (0.85, [FEW], False),  # far below the promise
        (0.96, [FEW, 600], False),  # above it, within what chance does: 1.645 standard errors of 0.008
        (0.965, [FEW, 600], True),
        (0.98, [FEW, 600], True),  # few could still be lucky: the largest error of a mean of 0.95 is 0.015
        (1.0, [FEW], True),
    ],
)
def test_a_promise_is_kept_with_a_margin_for_chance(
    monkeypatch: pytest.MonkeyPatch, recall: float, sizes: list[int], keeps: bool
) -> None:
    """Planted: under the filter a share of the queries finds all, the others nothing."""
    games = 'section == "games"'
    measured: dict[str, list[int]] = {"": [], games: []}

    class Planted:
        def __init__(self, _: Any, rows: int, queries: int, filter: str) -> None:
            self.queries, self.filter = min(rows, queries), filter

        def measure(self, *_: Any) -> milvus.Recall:
            measured[self.filter].append(self.queries)
            share = recall if self.filter else 0.999
            return milvus.Recall(share, queries=self.queries, deviation=(share * (1 - share)) ** 0.5)

    def ids(_: PromisedRecall, __: str, filter: str) -> NDArray[np.int64] | None:
        return np.arange(600) if filter else None

    monkeypatch.setattr(promised_recall, "RepeatedRecall", Planted)
    monkeypatch.setattr(PromisedRecall, "_ids", ids)
    report = Report(run_id="1", command="load", name="n")
    session: Any = SimpleNamespace(config=SimpleNamespace(verify=Verify()), report=report)
    snapshot: Any = SimpleNamespace(total=lambda _: 60_000)
    spec = replace(SPEC, promise={"recall_at_10": 0.95, "filters": [games]})
    promised = PromisedRecall(session, None, snapshot, None, spec)  # type: ignore[arg-type]
    verdict = promised.measure(spec)
    assert (verdict.keeps, verdict.recalls) == (keeps, {"": 0.999, games: recall})
    assert measured == {"": [FEW], games: sizes}
    # What broke the promise is measured first, and then nothing else.
    assert promised.measure(spec).keeps == keeps
    assert len(measured[""]) == (2 if keeps else 1)
    assert [(one.filter, one.rows) for one in report.measured_indexes[:2]] == [("", 60_000), (games, 600)]


def test_what_unseen_queries_find_less_makes_a_search_wider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real index in Milvus Lite; what its searches find is planted, by rows and by what was left out of a sample."""

    def recall(_: PromisedRecall, spec: CollectionSpec, __: str, ___: int) -> tuple[float, float]:
        return 1 - 1 / spec.vectors[0].search_parameters["ef"], 0.0

    def unseen(promised: PromisedRecall, _: CollectionSpec) -> dict[str, list[UnseenRecall]]:
        lost = {"": UnseenRecall((0.9,), (0.89,)), 'section == "games"': UnseenRecall((0.9,), (0.88,))}
        return {filter: [UnseenRecall(), one] for filter, one in lost.items()}

    monkeypatch.setattr(PromisedRecall, "_recall", recall)
    monkeypatch.setattr(PromisedRecall, "_unseen", unseen)
    monkeypatch.setattr(
        publication, "choose", lambda *_: [Candidate("HNSW", LINKS, {"ef": 10}, 0.97, 100, 1, keeps=True)]
    )
    write_corpus(tmp_path, 60)
    promise = {"type": "auto", "recall_at_10": 0.95, "filters": ['section == "games"']}
    config = configured(tmp_path, promise, verify={"recall_at_10": 0.1})
    report = backfill(config)
    found = chosen(config)
    ef = found["search"]["ef"]
    assert 1 - 1 / ef - 0.02 >= 0.95 > 1 - 1 / (ef / CLOSE - 1) - 0.02
    assert found["recalls"][""] == pytest.approx(found["unseen"][""] + 0.01, abs=1e-4)
    said = re.search(r'([0-9.]+) under section == "games" \(unseen queries ([0-9.]+)\)', report.verify.index_chosen)
    assert said is not None
    assert float(said[1]) - float(said[2]) == pytest.approx(0.02, abs=1e-4)
    assert {one.unseen_at_10 for one in report.measured_indexes if one.filter} >= {float(said[2])}
    page = tmp_path / "page.html"
    write_report(config, html=page)
    assert ">of unseen queries</th>" in page.read_text()
    milvus.release(config.collection)


def test_verify_tells_that_a_served_collection_no_longer_keeps_its_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that is too narrow stands for what rows that came and went do to an index."""
    candidate = Candidate("IVF_FLAT", {"nlist": 64}, {"nprobe": 64}, 1.0, 100, 1, keeps=True)
    monkeypatch.setattr(publication, "choose", lambda *_: [candidate])
    write_corpus(tmp_path, 600)
    promise = {"type": "auto", "recall_at_10": 0.97, "filters": ['section == "games"']}
    config = configured(tmp_path, promise, verify={"recall_at_10": 0.01})
    backfill(config)
    with milvus.connected(config.collection) as connection:
        name = milvus.served(connection, config.name) or ""
        state = milvus.state(connection, name)
        assert state is not None
        narrow = {**json.loads(state.properties["vecbeam.index"]), "search": {"nprobe": 1}}
        milvus.set_properties(connection, name, {"vecbeam.index": json.dumps(narrow)})
    with pytest.raises(GateError) as error:
        verify(config)
    assert re.search(r"recall@10 of queries that are not rows is 0\.\d{4}.* promises 0\.97", error.value.message)
    assert "vecbeam load --rebuild" in error.value.remedy
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "vecbeam.yaml")])
    assert done.exit_code == 3
    assert "promise   recall@10 of unseen queries 0." in done.output
    monkeypatch.undo()
    assert load(config, rebuild=True).verify.published
    assert verify(config).verify.promise.endswith("promised 0.97")
    milvus.release(config.collection)


@pytest.mark.parametrize(
    ("found", "broken", "warns"), [(0.97, False, False), (0.965, False, True), (0.95, True, False)]
)
def test_chance_alone_breaks_no_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: float, broken: bool, warns: bool
) -> None:
    write_corpus(tmp_path, 60)
    config = configured(tmp_path, {"type": "auto", "recall_at_10": 0.97})
    backfill(config)
    monkeypatch.setattr(PromisedRecall, "_recall", lambda *_: (found, 0.005))
    if broken:
        with pytest.raises(GateError, match=r"is 0\.9500, and collection\.index promises 0\.97"):
            verify(config)
    else:
        warnings = verify(config).warnings
        assert any("promises 0.97; chance could explain" in one for one in warnings) == warns
    milvus.release(config.collection)


def test_verify_of_a_promise_names_the_extra_that_it_needs(tmp_path: Path) -> None:
    write_corpus(tmp_path, 60)
    config = configured(tmp_path, {"type": "auto"})
    backfill(config)
    milvus.release(config.collection)
    done = run_without(("faiss",), "verify", str(tmp_path / "vecbeam.yaml"), folder=tmp_path)
    assert done.returncode == 2
    assert "vecbeam verify of collection.index: auto needs" in done.stderr
    assert "vecbeam[explore]" in done.stderr


def test_a_promise_that_nothing_keeps_publishes_nothing(tmp_path: Path) -> None:
    write_corpus(tmp_path, 60)
    config = configured(tmp_path, {"type": "auto", "memory_gb": 1e-9})
    with pytest.raises(GateError, match=r"no index keeps recall@10 0\.95 within 1e-09 GB: ") as error:
        backfill(config)
    assert "raise collection.index.memory_gb" in error.value.remedy
    with milvus.connected(config.collection) as connection:
        assert milvus.served(connection, config.name) is None
    wrong = configured(tmp_path, {"type": "auto", "filters": ["author == 3"]})
    with pytest.raises(ConfigurationError, match="Milvus does not understand the filter author == 3"):
        backfill(wrong)
    with milvus.connected(config.collection) as connection:
        assert milvus.served(connection, config.name) is None
    milvus.release(config.collection)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("automatic", "'automatic' is neither auto nor a mapping with a type"),
        ({"type": "auto", "M": 8}, "collection.index.M"),
        ({"type": "auto", "recall_at_10": 1.5}, "collection.index.recall_at_10"),
        ({"type": "auto", "memory_gb": 0.0}, "collection.index.memory_gb"),
        ({"type": "HNSW", "recall_at_10": 1}, "recall_at_10"),
    ],
)
def test_a_wrong_promise_is_refused(tmp_path: Path, index: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        configured(tmp_path, index)
    assert said in str(error.value)


def test_search_parameters_are_part_of_the_choice(tmp_path: Path) -> None:
    configured(tmp_path, "auto")
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "vecbeam.yaml"), "--set", "collection.search={ef: 64}"])
    assert result.exit_code == 2
    assert "remove collection.search" in result.output
    promise = load_config(tmp_path / "vecbeam.yaml").collection.promise
    assert promise is not None
    assert (promise.recall_at_10, promise.memory_gb, promise.filters) == (None, None, [])
