"""`vecbeam status` and `vecbeam doctor` with a real Milvus server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpora import configure, text, write_jsonl
from milvus_server import Server
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.reindex import reindex
from schemas.config import Config
from transforms import milvus

pytestmark = pytest.mark.server


def said(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    return found


def configured(folder: Path, server: Server, name: str, **changes: Any) -> Config:
    write_jsonl(folder / "corpus" / "a.jsonl", [{"id": f"i{n}", "text": text(n)} for n in range(60)])
    index = {"type": "HNSW", "M": 8, "efConstruction": 64}
    return configure(folder, name=name, collection={"uri": server.uri, "index": index} | changes)


def test_status_of_what_a_server_has(tmp_path: Path, milvus_server: Server) -> None:
    config = configured(tmp_path, milvus_server, "status_on_server")
    path = str(tmp_path / "vecbeam.yaml")
    before = said("status", path)
    assert before["server"].endswith("2.3.5")
    assert (before["served"], before["previous"], before["newest"], before["error"]) == (None, None, None, "")
    first = backfill(config)
    served = said("status", path)["served"]
    assert (served["collection"], served["rows"], served["loaded"]) == (first.collection, 60, True)
    assert served["snapshot_rows"] == 60
    assert served["published_by"] == first.run_id
    assert served["index"] == {"vector": "HNSW COSINE, M 8, efConstruction 64"}

    again = reindex(configured(tmp_path, milvus_server, "status_on_server", index={"type": "IVF_FLAT", "nlist": 4}))
    found = said("status", path)
    assert found["served"]["collection"] == again.collection != first.collection
    assert (found["previous"]["collection"], found["previous"]["ready"]) == (first.collection, True)

    with milvus.connected(config.collection) as connection:
        connection.client.release_collection(again.collection)
    found = said("status", path)
    assert (found["served"]["loaded"], found["served"]["rows"]) == (False, None)
    page = CliRunner().invoke(app, ["status", path])
    assert page.exit_code == 0, page.output
    assert again.collection in page.stdout
    with milvus.connected(config.collection) as connection:
        assert "NotLoad" in str(connection.client.get_load_state(again.collection)), "status changes nothing"


def test_doctor_asks_the_server(tmp_path: Path, milvus_server: Server) -> None:
    configured(tmp_path, milvus_server, "doctor_on_server")
    path = str(tmp_path / "vecbeam.yaml")

    def checks(*words: str) -> dict[str, dict[str, str]]:
        return {one["name"]: one for one in said("doctor", path, *words)["checks"]}

    found = checks()
    assert found["milvus"]["outcome"] == "ok", found
    assert "2.3.5" in found["milvus"]["message"]
    assert milvus_server.uri in found["milvus"]["message"]
    assert found["milvus capabilities"]["outcome"] == "ok", found
    assert checks("--offline")["milvus"]["outcome"] == "skipped"
    with milvus.connected(configured(tmp_path, milvus_server, "doctor_on_server").collection) as connection:
        assert not any(one.startswith("doctor_on_server") for one in connection.client.list_collections())
    # Refused by name, from the table of what a server can do.
    configure(tmp_path, encoder={"model": "bm25"}, collection={"uri": milvus_server.uri})
    refused = checks()["milvus capabilities"]
    assert refused["outcome"] == "fail", refused
    assert "2.3.5" in refused["message"]
    assert refused["remedy"]
