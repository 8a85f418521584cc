"""What a server can't do is refused by name, with its version and the remedy, before anything is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from collection_data import configuration
from corpora import configure, write_jsonl
from milvus_server import Server as RealServer

from pipelines.backfill import backfill
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.steps.collection.server import check_server
from pipelines.sync import sync
from schemas.errors import CollectionError
from schemas.milvus import LITE, SERVER
from schemas.milvus.capabilities import CAPABILITIES, Evidence, Server, capabilities_of, refusals
from transforms import milvus


@pytest.mark.parametrize(
    ("version", "index_type", "said"),
    [
        ("v2.3.5", "HNSW_SQ", "collection.index.type: HNSW_SQ: Milvus 2.3.5 can't build it.*Milvus 2.6 or newer"),
        ("milvus_lite-3.2.2", "SCANN", "collection.index.type: SCANN: Milvus Lite 3.2.2 can't build it.*Milvus 2.3"),
        ("v2.5.4", "IVF_RABITQ", "Milvus 2.5.4 can't build it.*Milvus 2.6 or newer"),
        ("v2.6.0", "NONSENSE", "choose one of AUTOINDEX, FLAT, .*, SCANN$"),
    ],
)
def test_an_index_type_that_a_server_can_not_build(version: str, index_type: str, said: str) -> None:
    found = refusals(Server.of(version), index_type=index_type, metric="COSINE")
    assert len(found) == 1
    assert re.search(said, "; ".join(found[0]))


def test_what_each_server_takes() -> None:
    for kind, entries in CAPABILITIES.items():
        for number, can in entries.items():
            server = Server(kind, ".".join(map(str, number)))
            for index_type in ("AUTOINDEX", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8"):
                for metric in ("COSINE", "IP", "L2"):
                    assert refusals(server, index_type=index_type, metric=metric) == []
            assert set(can.indexes) == set(can.metrics)


def test_the_entry_of_a_version() -> None:
    assert capabilities_of(Server(SERVER, "v2.3.5")).evidence is Evidence.PROBED
    assert capabilities_of(Server(LITE, "3.2.2")).evidence is Evidence.PROBED
    assert capabilities_of(Server(SERVER, "v2.10.0")) is CAPABILITIES[SERVER][2, 6]
    assert capabilities_of(Server(SERVER, "v2.2.9")) is CAPABILITIES[SERVER][2, 3]
    assert capabilities_of(Server(SERVER, "nightly")) is CAPABILITIES[SERVER][2, 6]
    assert capabilities_of(Server(SERVER, "v3.0.1")) is CAPABILITIES[SERVER][2, 6]


def test_a_connection_knows_its_server(milvus_uri: str) -> None:
    with milvus.connected(configuration(milvus_uri)) as connection:
        assert connection.is_lite is not milvus_uri.startswith("http")
        assert str(connection.server) == ("Milvus Lite 3.2.2" if connection.is_lite else "Milvus 2.3.5")
        assert connection.capabilities.bulk_import is not connection.is_lite


@pytest.mark.server
def test_the_real_server_is_asked(milvus_server: RealServer) -> None:
    settings = configuration(milvus_server.uri)
    check_server(settings)
    index = settings.index.model_copy(update={"type": "HNSW_SQ"})
    with pytest.raises(CollectionError, match=r"collection.index.type: HNSW_SQ: Milvus 2.3.5 can't build it"):
        check_server(settings.model_copy(update={"index": index}))


@pytest.mark.parametrize("command", [backfill, sync, reindex, load, plan])
def test_commands_refuse_before_they_read(tmp_path: Path, command: Any) -> None:
    write_jsonl(tmp_path / "corpus" / "docs.jsonl", [{"id": "a", "text": "one"}])
    config = configure(tmp_path)
    collection = config.collection.model_copy(
        update={"index": config.collection.index.model_copy(update={"type": "SCANN"})}
    )
    with pytest.raises(CollectionError, match=r"collection.index.type: SCANN: Milvus Lite .* can't build it"):
        command(config.model_copy(update={"collection": collection}))
    assert not (tmp_path / "milvus.db").exists()
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.server
def test_a_server_without_bm25_is_refused_by_name(tmp_path: Path, milvus_server: Any) -> None:
    write_jsonl(tmp_path / "corpus" / "items.jsonl", [{"id": "a", "text": "words"}])
    config = configure(tmp_path, encoder={"model": "bm25"}, collection={"uri": milvus_server.uri})
    says = r"encoders\.vector\.model: bm25: Milvus 2\.3\.5 computes no BM25"
    for command in (plan, backfill, reindex):
        with pytest.raises(CollectionError, match=says):
            command(config)
    assert not list(tmp_path.glob("checkpoint/tested/*/parts"))
