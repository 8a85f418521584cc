"""A searcher in a loop on the alias, while the collection behind it is replaced: Lite through its server, and Milvus.

The models differ by their prompt alone, so that vectors of both have the same length, and the tokens of a row tell of
which collection it is: the prompt's three words count for each.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import empty
from corpora import configure, text, write_jsonl
from pymilvus import MilvusClient

from pipelines.backfill import backfill
from pipelines.reindex import reindex
from pipelines.rollback import rollback
from transforms.encoders import resolve, text_inputs

PROMPT = "passage to find "
LIMIT = 10


@pytest.fixture
def lite_uri(tmp_path: Path) -> Iterator[str]:
    """Milvus Lite behind its own server, on a free port of the loopback."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    command = [str(Path(sys.executable).parent / "milvus-lite"), "server", "--host", "127.0.0.1", "--port", str(port)]
    with open(tmp_path / "lite.log", "w") as log:
        process = subprocess.Popen([*command, "--data-dir", str(tmp_path / "lite")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (tmp_path / "lite.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(timeout=30)


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.server)])
def uri(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "lite":
        yield request.getfixturevalue("lite_uri")
        return
    found = request.getfixturevalue("milvus_server").uri
    empty(found)
    yield found
    empty(found)


class Searcher:
    """Searches an alias without a pause; keeps every answer as its rows' (id, tokens), and every error."""

    def __init__(self, uri: str, alias: str, vector: list[float]) -> None:
        self.answers: list[list[tuple[str, int]]] = []
        self.errors: list[Exception] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._search, args=(uri, alias, vector))

    def __enter__(self) -> Searcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wait_for_more()
        self._ended.set()
        self._thread.join()

    def wait_for_more(self) -> None:
        """Waits until some searches that began after this call were answered."""
        enough = len(self.answers) + len(self.errors) + 4
        for _ in range(600):
            if len(self.answers) + len(self.errors) >= enough:
                return
            time.sleep(0.1)
        raise AssertionError("the searcher is stuck")

    def _search(self, uri: str, alias: str, vector: list[float]) -> None:
        client = MilvusClient(uri, dedicated=True)
        while not self._ended.is_set():
            try:
                found: Any = client.search(alias, [vector], limit=LIMIT, output_fields=["id", "tokens"])
                self.answers.append([(row["id"], row["entity"]["tokens"]) for row in found[0]])
            except Exception as error:  # each one is a failure of the test, whatever it is
                self.errors.append(error)
        client.close()


def test_each_search_is_answered_by_the_old_or_by_the_new_collection(tmp_path: Path, uri: str) -> None:
    items = [{"id": f"item-{number}", "text": text(number)} for number in range(3000)]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", items)
    old = configure(tmp_path, collection={"uri": uri, "index": {"type": "HNSW", "M": 8, "efConstruction": 64}})
    first = backfill(old)
    new = configure(
        tmp_path,
        encoder={"model": "fake", "dimensions": 32, "prompt": PROMPT},
        collection={"uri": uri, "index": {"type": "IVF_FLAT", "nlist": 16}, "search": {"nprobe": 16}},
    )
    words = {item["id"]: len(item["text"].split()) for item in items}
    vector = resolve(old.encoder).load().encode(text_inputs([text(5)])).matrix[0].tolist()

    with Searcher(uri, old.name, vector) as searcher:
        searcher.wait_for_more()
        second = reindex(new)
        searcher.wait_for_more()
        before_rollback = len(searcher.answers)
        rollback(new)

    assert first.collection != second.collection
    assert searcher.errors == []
    prompted = []
    for answer in searcher.answers:
        assert len(answer) == len({id for id, _ in answer}) == LIMIT
        extra = {tokens - words[id.rsplit("#", 1)[0]] for id, tokens in answer}
        assert extra in ({0}, {3}), f"an answer of both collections: {answer}"
        prompted.append(extra == {3})
    # From the old to the new once, and by the rollback back once.
    assert prompted.index(True) < before_rollback
    moves = [after for before, after in pairwise(prompted) if before != after]
    assert moves == [True, False]
