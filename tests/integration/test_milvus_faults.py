"""A real server that stops, loses its answers, is late, throttles, needs a token, or refuses large messages."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collection_data import all_rows, configuration, numbered, sliced, spec_of, unit_vectors
from milvus_server import NamespaceError, Server, start_server

from pipelines.backfill import backfill
from pipelines.index import Index
from schemas.config import Collection
from schemas.config.loader import load_config
from schemas.errors import CollectionError
from transforms import milvus
from transforms.support.metrics import TALLY

pytestmark = pytest.mark.server
TOKEN = "root:Milvus"
FLAT = spec_of(index_type="FLAT")


class Proxy:
    """A TCP proxy on 127.0.0.1 that can lose answers, cut its connections and close.

    Armed with a number of bytes, it lets that many through to the server, waits until the client has sent no more for
    a moment, and then cuts the connection: what the server answers is lost. What the server says comes through
    `answers_after` seconds late.
    """

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lose_after = 0
        self.lost = 0
        self.answers_after = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answer_after(self, sent_bytes: int) -> None:
        self._lose_after = sent_bytes

    def cut(self) -> None:
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._pairs.append((connection, server))
                threading.Thread(target=self._upstream, args=(connection, server), daemon=True).start()
                threading.Thread(target=self._downstream, args=(connection, server), daemon=True).start()

    def _upstream(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
                if self._lose_after:
                    sent += len(data)
                    if sent >= self._lose_after:
                        self._lose_after = 0
                        self.lost += 1
                        self._lose(client, server)
                        return
            server.shutdown(socket.SHUT_WR)

    def _lose(self, client: socket.socket, server: socket.socket) -> None:
        client.settimeout(0.3)
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
        time.sleep(0.3)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _downstream(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            lost = self.lost
            while data := server.recv(1 << 16):
                time.sleep(self.answers_after)
                # Flow control goes through while the client sends; after that nothing does.
                if self.lost == lost:
                    client.sendall(data)
            client.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(milvus_server: Server) -> Iterator[Proxy]:
    opened = Proxy(milvus_server.port)
    yield opened
    opened.close()


def emptied(config: Collection) -> Any:
    connection = milvus.connect(config)
    if milvus.exists(connection, FLAT.name):
        connection.client.drop_collection(FLAT.name)
    milvus.create(connection, FLAT, "load-one")
    TALLY.reset()
    return connection


def test_an_upsert_whose_answer_is_lost_is_sent_again(proxy: Proxy) -> None:
    config = configuration(f"http://127.0.0.1:{proxy.port}", message_rows=500)
    connection = emptied(config)
    rows = numbered(1500, text=["x" * 200] * 1500)
    proxy.lose_answer_after(500 * 250 + 20_000)  # in the second message
    assert milvus.upsert(connection, FLAT, rows) == 1500
    assert proxy.lost == 1
    assert TALLY.snapshot()["retries"] >= 1
    milvus.finish(connection, FLAT)
    assert milvus.count(connection, FLAT.name) == 1500
    check = milvus.verify_rows(connection, FLAT.name, sliced(rows.select(["id", "content_hash"]), 400))
    assert check == milvus.RowCheck(expected=1500, found=1500, total=1500)
    assert all_rows(connection, FLAT.name)["doc-700#0"]["text"] == "x" * 200


def test_a_connection_cut_again_and_again_loses_nothing(proxy: Proxy) -> None:
    config = configuration(f"http://127.0.0.1:{proxy.port}", message_rows=50)
    connection = emptied(config)
    done = threading.Event()

    def cutting() -> None:
        while not done.wait(0.4):
            proxy.cut()

    thread = threading.Thread(target=cutting)
    thread.start()
    rows = numbered(1500)
    try:
        for part in sliced(rows, 150):
            assert milvus.upsert(connection, FLAT, part) == 150
    finally:
        done.set()
        thread.join()
    milvus.finish(connection, FLAT)
    check = milvus.verify_rows(connection, FLAT.name, sliced(rows.select(["id", "content_hash"]), 400))
    assert check == milvus.RowCheck(expected=1500, found=1500, total=1500)


def test_a_server_that_is_slow_throughout(proxy: Proxy) -> None:
    config = configuration(f"http://127.0.0.1:{proxy.port}", message_rows=100, timeout_s=10.0)
    connection = emptied(config)
    proxy.answers_after = 0.3
    assert milvus.upsert(connection, FLAT, numbered(1500)) == 1500
    assert TALLY.snapshot().get("retries", 0) == 0
    proxy.answers_after = 0.0
    milvus.finish(connection, FLAT)
    assert milvus.count(connection, FLAT.name) == 1500


def test_answers_later_than_the_time_out(proxy: Proxy) -> None:
    config = configuration(f"http://127.0.0.1:{proxy.port}", message_rows=500, timeout_s=1.0, retry_s=60.0)
    connection = emptied(config)
    proxy.answers_after = 1.5
    threading.Timer(4.0, setattr, (proxy, "answers_after", 0.0)).start()
    assert milvus.upsert(connection, FLAT, numbered(1500)) == 1500
    assert TALLY.snapshot()["retries"] >= 1
    connection.settings = config.model_copy(update={"timeout_s": 60.0})
    milvus.finish(connection, FLAT)
    assert milvus.count(connection, FLAT.name) == 1500


def test_a_message_over_the_servers_limit(milvus_server: Server) -> None:
    """The configuration allows none over 64 MiB; a server may be set to take less."""
    # Past the checks of the configuration.
    config = configuration(milvus_server.uri).model_copy(update={"message_bytes": 1 << 30, "message_rows": 16384})
    wide = spec_of(index_type="FLAT", dimensions=4500)
    connection = milvus.connect(config)
    if milvus.exists(connection, wide.name):
        connection.client.drop_collection(wide.name)
    milvus.create(connection, wide, "load-one")
    rows = numbered(4000, vectors=np.ones((4000, 4500), np.float32))
    assert milvus.upsert(connection, wide, rows) == 4000
    milvus.finish(connection, wide)
    assert milvus.count(connection, wide.name) == 4000
    connection.client.drop_collection(wide.name)


def test_a_server_that_throttles(own_server: list[Server]) -> None:
    config = configuration(own_server[0].uri, message_rows=100, retry_s=60.0)
    connection = emptied(config)
    rows = numbered(2000, text=["x" * 1000] * 2000)
    assert milvus.upsert(connection, FLAT, rows) == 2000
    assert TALLY.snapshot()["retries"] >= 1
    milvus.finish(connection, FLAT)
    check = milvus.verify_rows(connection, FLAT.name, sliced(rows.select(["id", "content_hash"]), 400))
    assert check == milvus.RowCheck(expected=2000, found=2000, total=2000)


LIMITS = {"enabled": True, "dml.enabled": True, "dml.insertRate.max": 0.5, "dml.upsertRate.max": 0.5}
"""Megabytes a second."""


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """A server of the test's own, which needs a token and accepts only small messages; the last of the list runs."""
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    monkeypatch.setattr("transforms.milvus.connection.CONNECT_S", 1.0)
    limits = {f"quotaAndLimits.{key}": value for key, value in LIMITS.items()}
    try:
        servers = [start_server(tmp_path / "milvus", settings={"authorization_enabled": True} | limits)]
    except NamespaceError as error:
        pytest.skip(str(error))
    yield servers
    servers[-1].stop()


def published_index(folder: Path, uri: str) -> Index:
    """An open Index of three texts, published on a server."""
    (folder / "islands.jsonl").write_text("".join(f'{{"id": "{n}", "text": "island {n}"}}\n' for n in "abc"))
    values = {
        "name": "islands",
        "corpus": {"paths": "islands.jsonl", "id": "id", "content": ["text"]},
        "encoder": {"model": "fake"},
        "checkpoint": "checkpoint",
        "collection": {"uri": uri, "index": {"type": "FLAT"}},
    }
    (folder / "vecbeam.yaml").write_text(json.dumps(values))
    backfill(load_config(folder / "vecbeam.yaml"))
    return Index(folder / "vecbeam.yaml")


def test_tokens_databases_and_a_server_that_dies(
    own_server: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(own_server[0].uri, retry_s=90.0)

    for token in ("", "root:wr0ng-s3cret", "whole-api-key-s3cret"):
        monkeypatch.setenv("MILVUS_TOKEN", token)
        TALLY.reset()
        with pytest.raises(
            CollectionError, match=f"{config.uri} refuses the token.*MILVUS_TOKEN=user:password"
        ) as caught:
            milvus.connect(config)
        assert "s3cret" not in str(caught.value)
        assert TALLY.snapshot() == {}
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)

    with pytest.raises(CollectionError, match=r"has no database 'nowhere'.*collection.database"):
        milvus.connect(config.model_copy(update={"database": "nowhere"}))

    # Killed in the middle of a load; it comes back a little later.
    connection = milvus.connect(config)
    milvus.create(connection, FLAT, "load-one")
    rows = numbered(1000, vectors=unit_vectors(1000))
    parts = list(sliced(rows, 100))
    for part in parts[:4]:
        milvus.upsert(connection, FLAT, part)
    own_server[0].kill()
    restart = threading.Thread(target=lambda: own_server.append(own_server[0].restart()))
    restart.start()
    TALLY.reset()
    for part in parts[4:]:
        assert milvus.upsert(connection, FLAT, part) == 100
    restart.join()
    assert TALLY.snapshot()["retries"] >= 1
    milvus.finish(connection, FLAT)
    check = milvus.verify_rows(connection, FLAT.name, sliced(rows.select(["id", "content_hash"]), 300))
    assert check == milvus.RowCheck(expected=1000, found=1000, total=1000)
    milvus.publish(connection, "docs", FLAT.name)

    # Killed after that; searching waits until the collection is loaded again, and an open Index continues.
    index = published_index(tmp_path, config.uri)
    found = index.search("island b", 2)
    own_server[-1].kill()
    own_server.append(own_server[-1].restart())
    assert milvus.served(connection, "docs") == FLAT.name
    hits = milvus.search(connection, "docs", unit_vectors(1000)[3], 1, index_type="FLAT")
    assert [hit.id for hit in hits] == ["doc-3#0"]
    assert index.search("island b", 2) == found
    index.close()

    # Gone permanently.
    own_server[-1].kill()
    short = connection.settings = config.model_copy(update={"retry_s": 1.0})
    with pytest.raises(
        CollectionError, match=f"{config.uri} does not answer: \\w+ docs_1 failed.*what was loaded"
    ) as gone:
        milvus.upsert(connection, FLAT, parts[0])
    assert TOKEN not in str(gone.value)
    with pytest.raises(CollectionError, match=f"{config.uri} does not answer: connecting failed"):
        milvus.connect(short)
