"""Connects to Milvus Lite or a server, with a clear error if that fails."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.config import Collection
from schemas.errors import CollectionError
from schemas.milvus.capabilities import Capabilities, Server, capabilities_of
from transforms.milvus.call import OneAttempt, again, call, passes, translate, words
from transforms.milvus.client_import import client_class
from transforms.milvus.lite import GARBAGE, LITE_LOG, listening, lite_error
from transforms.support import process
from transforms.support.retry import retrying

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "MILVUS_TOKEN"
CONNECT_S = 5.0
"""Seconds in which a server must answer at first; later calls have `timeout_s` and `retry_s`."""
LITE_START_S = 60.0
"""Seconds for the first answer of Milvus Lite, which reads its log when it starts."""

_QUIET = {"grpc.keepalive_time_ms": 2**31 - 1}
"""Options of a connection to Milvus Lite: no pings.

pymilvus pings every 10 seconds. The server of Milvus Lite keeps gRPC's default, which ends a connection that pings more
often than every 5 minutes; after a minute without a call, the next one failed with "Too many pings".
"""

_LITE_OPEN: dict[str, weakref.WeakSet[Milvus]] = {}
_LITE_LOCK = threading.RLock()
"""Guards _LITE_OPEN: the open connections to each Milvus Lite folder that this process serves."""


class Milvus:
    """An open connection to Milvus. Threads may share it; it is not pickled: each worker opens its own.

    Attributes:
        settings: the section `collection` of the configuration.
        client: of pymilvus; call it through `call` or `again`.
        server: its kind and version.
        message_bytes: most bytes of an upsert message; less than configured once the server has refused larger ones.
    """

    def __init__(self, settings: Collection, client: MilvusClient, server: Server) -> None:
        self.settings = settings
        self.client = client
        self.server = server
        self.message_bytes = settings.message_bytes

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the server, by its kind and version."""
        return capabilities_of(self.server)

    @property
    def is_lite(self) -> bool:
        """Whether Milvus Lite answers, embedded or served by `milvus-lite server`."""
        return self.server.is_lite

    @property
    def limit(self) -> OneAttempt:
        """Time limit of one call, in seconds."""
        return OneAttempt(self.settings.timeout_s)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method of the client; see `transforms.milvus.call.call`."""
        return call(self.settings, function, *args, **kwargs)

    def again(self, what: str, function: Callable[[], Any], seconds: float | None = None) -> Any:
        """Runs a function of several calls until it succeeds; see `transforms.milvus.call.again`."""
        return again(self.settings, what, function, seconds)

    def close(self) -> None:
        """Closes the client; may be called again."""
        if self.settings.is_lite:
            with _LITE_LOCK:
                _LITE_OPEN.get(_lite_path(self.settings), weakref.WeakSet()).discard(self)
        self.client.close()

    def __enter__(self) -> Milvus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(config: Collection, *, create: bool = True) -> Milvus:
    """Opens a connection, checks access with one call, and asks for the server's version.

    The token comes from the environment variable MILVUS_TOKEN. Close the connection, or use `connected`.

    Args:
        create: whether to create a missing Milvus Lite folder; readers pass False.

    Raises:
        CollectionError: where Milvus doesn't answer (after about five seconds), refuses the token, or has no such
            database; if another process holds a Lite file, it is not one, or can't be created; if milvus-lite is
            missing.
    """
    if not create:
        check_exists(config)
    return _connect_lite(config) if config.is_lite else _connect_server(config)


@contextlib.contextmanager
def connected(config: Collection, *, create: bool = True) -> Iterator[Milvus]:
    """A connection for the length of a block; see `connect`."""
    with connect(config, create=create) as connection:
        yield connection


def writers(connection: Milvus) -> int:
    """How many parts a job may write at once: one to Milvus Lite, also to one that a server serves over TCP."""
    return 1 if connection.is_lite else connection.settings.most_writers


def check_exists(config: Collection) -> None:
    """Raises CollectionError where a Milvus Lite folder does not exist; a server is not contacted."""
    path = _lite_path(config)
    if config.is_lite and not Path(path).exists():
        raise CollectionError(
            f"there is no Milvus Lite collection at {path}",
            "build it with vecbeam backfill, or correct collection.uri",
        )


def release(config: Collection, *, unused: bool = False) -> None:
    """Stops this process' embedded Lite server, so that another process can open the file. No effect on servers.

    Args:
        unused: leaves the server alone while a connection of this process is still open.
    """
    if not config.is_lite:
        return
    path = _lite_path(config)
    with _LITE_LOCK:
        if unused and (path not in _LITE_OPEN or len(_LITE_OPEN[path])):
            return
        importlib.import_module("milvus_lite.server_manager").server_manager_instance.release_server(path)


def _connect_server(config: Collection) -> Milvus:
    seconds = min(CONNECT_S, config.timeout_s)

    def attempt() -> Milvus:
        opened = _open(config, config.uri, seconds)
        if not opened.is_lite:
            return opened
        opened.client.close()
        return _open(config, config.uri, seconds, _QUIET)

    opened: Milvus = again(config, "connecting", attempt, seconds=min(CONNECT_S, config.retry_s))
    return opened


def _open(config: Collection, uri: str, seconds: float, options: Mapping[str, int] = MappingProxyType({})) -> Milvus:
    client_type = client_class()
    if process.is_own():
        # pymilvus logs each error with its traceback before it raises it; ours say the same in a line. Its import sets
        # the level as well, so that the command line can't do this before.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    client = client_type(
        uri,
        token="" if config.is_lite else os.environ.get(TOKEN, ""),
        db_name=config.database or "",
        timeout=seconds,
        dedicated=True,  # a connection of its own, which closing closes
        # gRPC would ask the proxy of http_proxy for this very machine.
        grpc_options={**options, **({"grpc.enable_http_proxy": 0} if _is_here(uri) else {})},
    )
    try:
        # The handshake checks neither the database nor the user's permissions.
        client.list_collections(timeout=OneAttempt(seconds))
        server = Server.of(client.get_server_version(timeout=OneAttempt(seconds)))
    except BaseException:
        client.close()
        raise
    return Milvus(config, client, server)


def _is_here(uri: str) -> bool:
    """Whether an address is on this machine: Lite's, or a loopback address."""
    host = urlsplit(uri).hostname if "://" in uri else None
    if host is None or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _connect_lite(config: Collection) -> Milvus:
    path = _lite_path(config)
    try:
        importlib.import_module("milvus_lite")
    except ImportError as error:
        raise CollectionError(
            f"{path} is a Milvus Lite file, and milvus-lite is not installed", "pip install 'vecbeam[lite]'"
        ) from error
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CollectionError(
            f"can't make the folder of {path}: {error.strerror}", "correct collection.uri, or make the folder writable"
        ) from error
    if Path(path).exists() and not Path(path).is_dir():
        raise CollectionError(
            f"{path} is a file; Milvus Lite keeps a folder there (before version 3 it kept a file)",
            "move the file away, or name another path in collection.uri",
        )
    with listening(LITE_LOG) as heard:
        client_class()  # before the next line imports pymilvus in Python's own way
        from pymilvus.exceptions import ConnectionConfigException

        def attempt() -> Milvus:
            with _LITE_LOCK:
                connection = _open(config, path, LITE_START_S, _QUIET)
                _LITE_OPEN.setdefault(path, weakref.WeakSet()).add(connection)
                return connection

        try:
            opened: Milvus = retrying("Milvus connecting", min(CONNECT_S, config.retry_s), passes, words)(attempt)
            return opened
        except ConnectionConfigException as error:
            raise lite_error(path, heard, error) from error
        except Exception as error:
            if passes(error):
                raise translate(error, config, "connecting") from error
            raise CollectionError(f"can't open {path}: {error}", GARBAGE) from error


def _lite_path(config: Collection) -> str:
    # pymilvus recognizes a path of Lite by its last letters, so a slash after them must be removed.
    return str(Path(config.uri).absolute())
