"""Connecting to Milvus Lite or a server, and saying clearly why it didn't work."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import weakref
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from schemas.config import Collection
from schemas.errors import CollectionError
from transforms.milvus.call import OneAttempt, again, remember

if TYPE_CHECKING:
    from pymilvus import MilvusClient

TOKEN = "MILVUS_TOKEN"
CONNECT_S = 5.0
"""Seconds in which a server must answer at first; later calls have `timeout_s` and `retry_s`."""

_LITE_LOG = "milvus_lite.server_manager"

_LITE_CLIENTS: dict[str, weakref.WeakSet[Any]] = {}
_LITE_LOCK = threading.RLock()
"""Guards _LITE_CLIENTS: the open clients of each Milvus Lite folder that this process serves."""


def connect(config: Collection, *, create: bool = True) -> MilvusClient:
    """Opens a client and checks with one call that it is let in.

    The token comes from the environment variable MILVUS_TOKEN. Close the client, or use `connected`.

    Args:
        create: whether a Milvus Lite folder that does not exist is made. What only reads passes False.

    Raises:
        CollectionError: where Milvus isn't there (after about five seconds), refuses the token, lacks the database;
            where a Lite file is held by another process, is none, or can't be made; where milvus-lite is missing.
    """
    if not create:
        check_exists(config)
    client = _connect_lite(config) if config.is_lite else _connect_server(config)
    remember(client, config)
    return client


@contextlib.contextmanager
def connected(config: Collection, *, create: bool = True) -> Iterator[MilvusClient]:
    """A client for the length of a block; see `connect`."""
    with contextlib.closing(connect(config, create=create)) as client:
        yield client


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
        unused: leaves the server alone while a client of this process is still open.
    """
    if not config.is_lite:
        return
    path = _lite_path(config)
    with _LITE_LOCK:
        if unused and (path not in _LITE_CLIENTS or len(_LITE_CLIENTS[path])):
            return
        importlib.import_module("milvus_lite.server_manager").server_manager_instance.release_server(path)


def _connect_server(config: Collection) -> MilvusClient:
    seconds = min(CONNECT_S, config.timeout_s)

    def attempt() -> Any:
        return _open(config, config.uri, seconds)

    return again(config, "connecting", attempt, seconds=min(CONNECT_S, config.retry_s))


def _open(config: Collection, uri: str, seconds: float) -> Any:
    from pymilvus import MilvusClient

    # pymilvus logs each error with its traceback before it raises it; ours say the same in a line. (Its import sets
    # the level as well.)
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    client = MilvusClient(
        uri,
        token="" if config.is_lite else os.environ.get(TOKEN, ""),
        db_name=config.database or "",
        timeout=seconds,
        dedicated=True,  # a connection of its own, which closing closes
        # gRPC would ask the proxy of http_proxy for this very machine.
        **({"grpc_options": {"grpc.enable_http_proxy": 0}} if _is_here(uri) else {}),
    )
    try:
        # The handshake checks neither the database nor what the user may do.
        client.list_collections(timeout=OneAttempt(seconds))
    except BaseException:
        client.close()
        raise
    return client


def _is_here(uri: str) -> bool:
    """Whether an address is on this machine: Lite's, or a loopback address."""
    host = urlsplit(uri).hostname if "://" in uri else None
    if host is None or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _connect_lite(config: Collection) -> MilvusClient:
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
    with _listening(_LITE_LOG) as heard:
        from pymilvus.exceptions import ConnectionConfigException

        try:
            # The embedded server comes up with the first client; a minute is ample for reading its log again.
            with _LITE_LOCK:
                return _counted(path, _open(config, path, 60.0))
        except ConnectionConfigException as error:
            raise _lite_error(path, heard, error) from error
        except Exception as error:
            raise CollectionError(f"can't open {path}: {error}", _GARBAGE) from error


def _counted(path: str, client: Any) -> Any:
    """Counts a client of a Lite folder as open until it is closed."""
    clients = _LITE_CLIENTS.setdefault(path, weakref.WeakSet())
    clients.add(client)
    close = client.close

    def close_and_count() -> None:
        clients.discard(client)
        close()

    client.close = close_and_count
    return client


_GARBAGE = (
    "restore the folder, or move it away, with all collections in it, and run vecbeam load, which builds this one "
    "again from its checkpoint"
)


def _lite_error(path: str, heard: list[BaseException], error: BaseException) -> CollectionError:
    cause = heard[-1] if heard else error
    if type(cause).__name__ == "DataDirLockedError":
        return CollectionError(
            f"another process holds {path}",
            "wait until it ends, or serve the file to several processes: milvus-lite server --data-dir "
            f"{path} --host 127.0.0.1, with its address in collection.uri",
        )
    if isinstance(cause, OSError):
        return CollectionError(
            f"can't open {path}: {cause.strerror or cause}", "correct collection.uri, or make the folder writable"
        )
    return CollectionError(f"can't open {path}: {type(cause).__name__}: {cause}", _GARBAGE)


def _lite_path(config: Collection) -> str:
    # pymilvus takes a path for Lite's by its last letters, so a slash after them has to go.
    return str(Path(config.uri).absolute())


@contextlib.contextmanager
def _listening(name: str) -> Iterator[list[BaseException]]:
    """Catches the exceptions that a logger is given, in place of printing them: Lite tells its reason only there.

    It hears them also where the program around us has turned the logger down or off, as `logging.config` does with
    those that it doesn't know.
    """
    heard: list[BaseException] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                heard.append(record.exc_info[1])

    logger, ear = logging.getLogger(name), Ear()
    before = logger.propagate, logger.disabled, logger.level, logger.manager.disable
    logger.propagate, logger.disabled, logger.manager.disable = False, False, logging.NOTSET
    logger.setLevel(logging.ERROR)
    logger.addHandler(ear)
    try:
        yield heard
    finally:
        logger.removeHandler(ear)
        logger.propagate, logger.disabled, level, logger.manager.disable = before
        logger.setLevel(level)
