"""Cranfield through the pipeline and a search, with the packaged model in float32, against the exact figure."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.cranfield import configuration, ndcg, rankings, read_judgements
from pipelines.backfill import backfill
from pipelines.evaluate import evaluate

DATA = Path(__file__).parents[3] / "shared" / "data" / "cranfield"
EXACT_NDCG = 0.400
"""Of all-MiniLM-L6-v2 on title and text with exact search in float32, each document one vector."""

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the Cranfield corpus is not next to this checkout")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cranfield")


@pytest.mark.parametrize("index", ["FLAT", "HNSW"])
def test_ndcg_is_that_of_exact_search(work: Path, milvus_uri: str, index: str) -> None:
    queries, relevant = read_judgements(DATA)
    config = configuration(DATA, work, milvus_uri, index, chunked=False)

    report = backfill(config)

    computed = ndcg(rankings(config, queries), relevant)
    assert abs(computed - EXACT_NDCG) <= 0.002
    found = evaluate(config, queries=DATA / "queries.jsonl", truth=DATA / "qrels.tsv", served=True)
    assert found.figures["queries"] == len(relevant)
    assert found.figures["ndcg_at_10"]["value"] == pytest.approx(computed, abs=2e-3)
    assert found.figures["exact"]["ndcg_at_10"] == pytest.approx(EXACT_NDCG, abs=2e-3)
    assert (report.items.read, report.items.rejected, report.rejects) == (1400, 2, {"EmptyText": 2})
    assert report.verify.found == report.verify.expected == 1398
    rejects = [pq.read_table(file).to_pylist() for file in work.glob("checkpoint/cranfield/*/rejects/*.parquet")]
    assert sorted(row["id"] for rows in rejects for row in rows) == ["471", "995"]
