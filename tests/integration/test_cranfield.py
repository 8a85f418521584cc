"""Cranfield through the pipeline and a search, with the packaged model in float32, against the exact figure."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.cranfield import configuration, ndcg, rankings, read_judgements
from pipelines.backfill import backfill

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

    assert abs(ndcg(rankings(config, queries), relevant) - EXACT_NDCG) <= 0.002
    assert (report.items.read, report.items.rejected, report.rejects) == (1400, 2, {"EmptyText": 2})
    assert report.verify.found == report.verify.expected == 1398
    rejects = [pq.read_table(file).to_pylist() for file in work.glob("checkpoint/cranfield/*/rejects/*.parquet")]
    assert sorted(row["id"] for rows in rejects for row in rows) == ["471", "995"]
