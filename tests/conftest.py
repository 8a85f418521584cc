"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import beam_classes
import pytest
from milvus_server import NamespaceError, Server, start_server


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What this session keeps: converted models, of its processes too, and what Beam found out about classes."""
    os.environ["VECBEAM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    beam_classes.remember()


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real Milvus server of the test extra, one for all tests; seen on 127.0.0.1 alone."""
    pytest.importorskip("milvus", reason="the real server comes with the test extra: pip install milvus==2.3.5")
    try:
        server = start_server(tmp_path_factory.mktemp("milvus"))
    except NamespaceError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.server)])
def milvus_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty Milvus: Lite in a folder of the test, then the real server."""
    if request.param == "lite":
        path = tmp_path / "milvus.db"
        yield str(path)
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(str(path))
        return
    server: Server = request.getfixturevalue("milvus_server")
    empty(server.uri)
    yield server.uri
    empty(server.uri)


def empty(uri: str) -> None:
    """Drops all collections and aliases of a server."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri, dedicated=True)
    for name in client.list_collections():
        for alias in client.list_aliases(name)["aliases"]:
            client.drop_alias(alias)
        client.drop_collection(name)
    client.close()
