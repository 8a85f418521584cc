"""Pages of `vecbeam serve` over what is not a collection of dense vectors of the newest snapshot."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from corpora import configure, text, write_jsonl
from served_site import EXTRA, ask, served_here

from pipelines.backfill import backfill
from pipelines.index import Index
from schemas.errors import ConfigurationError
from transforms import milvus

for module in EXTRA:
    pytest.importorskip(module, reason="the extra serve is not installed")
PAGES = (
    "/",
    "/?q=dog",
    "/?q=dog&by=item",
    "/?like=doc3%230",
    "/map",
    "/compare?q=dog",
    "/duplicates",
    "/runs",
    "/rejects",
)


def test_without_dense_vectors_each_page_answers_and_says_what_it_needs(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"doc{n}", "text": text(n)} for n in range(12)])
    config = configure(tmp_path, encoder={"model": "bm25"}, chunk=False)
    backfill(config)
    with served_here(config, other=tmp_path / "vecbeam.yaml") as address:
        answers = {path: ask(address, path, accept="text/html") for path in PAGES}
        assert {path: one.status for path, one in answers.items() if one.status != 200} == {}
        for page in ("/map", "/duplicates"):
            assert "The rows of this collection have no dense vector" in answers[page].text
        assert 'id="answer"' not in answers["/"].text
        assert 'id="fuzzy"' in answers["/"].text
        points = ask(address, "/map/points").json["error"]
        assert "no dense vector: theirs are sparse" in points["message"]
        assert "add a dense encoder" in points["remedy"]
        assert "no vector of the rows is dense" in ask(address, "/?q=dog&answer=true", accept="text/html").text
    milvus.release(config.collection)


def test_the_pages_show_what_is_served_also_where_a_newer_snapshot_is_not(tmp_path: Path) -> None:
    records = [{"id": f"doc{n}", "text": text(n % 11), "kind": "first"} for n in range(12)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", records)
    corpus = {"paths": ["corpus/*"], "metadata": {"kind": "string"}}
    config = configure(tmp_path, chunk=False, corpus=corpus)
    backfill(config)
    write_jsonl(tmp_path / "corpus" / "b.jsonl", [{"id": f"new{n}", "text": "dog", "kind": "later"} for n in range(3)])
    elsewhere = config.model_copy(
        update={"collection": config.collection.model_copy(update={"uri": str(tmp_path / "elsewhere.db")})}
    )
    backfill(elsewhere)
    with served_here(config) as address:
        assert {*ask(address, "/map/points?color=kind").json["ids"]} == {f"doc{n}#0" for n in range(12)}
        page = ask(address, "/duplicates").text
        assert "1 group of 2 rows, of 12 rows" in page
        assert "new" not in page.partition("<main")[2].replace("newer", "")
        assert "<option>later</option>" not in ask(address, "/").text
        # More like a row that a page shows, among what is served.
        assert "new0" not in ask(address, "/?like=doc0%230").text
    milvus.release(config.collection)
    milvus.release(elsewhere.collection)


def test_an_index_serves_in_a_thread_and_frees_its_port(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": f"doc{n}", "text": text(n)} for n in range(12)])
    config = configure(tmp_path, chunk=False)
    backfill(config)
    with Index(tmp_path / "vecbeam.yaml") as index:
        with served_here(config, token="a long one") as address:
            port = urlsplit(address).port
            assert ask(address, "/healthz").status == 200
            assert ask(address, "/runs").status == 401
            assert ask(address, "/runs", Authorization="Bearer a long one").status == 200
            with pytest.raises(ConfigurationError, match=f"can't listen on 127.0.0.1:{port}: address already in use"):
                index.serve(port=port)
            with pytest.raises(ConfigurationError, match="VECBEAM_SERVE_TOKEN is not set"):
                index.serve(host="0.0.0.0")
            assert index.search(text(3), k=1)[0]["item_id"] == "doc3"
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
        assert index.search(text(3), k=1)[0]["item_id"] == "doc3"
    milvus.release(config.collection)
