"""A real Milvus standalone server for tests, seen from nowhere but this machine.

The server of the `milvus` package always listens on all interfaces, so it runs in a network
namespace of its own that has nothing but a loopback. A small forwarder brings one port of it out to 127.0.0.1: a
socket belongs to the namespace in which it was made, so a process that listens first and unshares afterwards
is in both. If the kernel doesn't permit that, `start_server` raises `NamespaceError`, unless
VECBEAM_TEST_MILVUS_ANY_INTERFACE=1 allows the server to listen on every interface.

    server = start_server(folder)     # about ten seconds
    client = MilvusClient(server.uri)
    server.kill()                     # SIGKILL
    server = server.restart()         # same data, same port
    server.stop()

Run as a script this file is the forwarder (`python milvus_server.py FOLDER PORT ...`); its standard input ties it to
its parent: when that closes, even by SIGKILL, server and forwarder go.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
ANY_INTERFACE = "VECBEAM_TEST_MILVUS_ANY_INTERFACE"
READY = "ready"
NO_NAMESPACE = "no namespace"
START_S = 180
SETTINGS: dict[str, Any] = {
    "log.level": "warn",
    # A killed server's sessions stay in its etcd for this many seconds, and the next start waits for them.
    "common.session.ttl": 5,
    # Tests are many small steps; each would wait for the next round of the server's. Milliseconds, and a second.
    "proxy.timeTickInterval": 50,
    "dataNode.timetick.interval": 50,
    "queryCoord.checkInterval": 100,
    "queryCoord.checkSegmentInterval": 100,
    "queryCoord.checkChannelInterval": 100,
    "queryCoord.distPullInterval": 50,
    "queryCoord.UpdateNextTargetInterval": 1,
}
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1


class NamespaceError(Exception):
    """This machine gives no network namespace of its own to the server; it would listen on all interfaces."""


@dataclass
class Server:
    """A running server; `settings` are dotted keys of milvus.yaml, as the package's config takes them."""

    folder: Path
    port: int
    process: subprocess.Popen[str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """Ends the server at once, as a power cut would; its data stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the server; a second call does nothing.

        By SIGKILL too: a clean stop takes up to a minute, and no test needs it.
        """
        self._end(signal.SIGKILL)

    def restart(self) -> Server:
        """A new server over the same data, on the same port."""
        self.stop()
        return start_server(self.folder, port=self.port, settings=self.settings)

    def _end(self, number: int) -> None:
        if self.running:
            # The forwarder led a group of its own; the server is in it, and carries its etcd inside.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            self.process.wait(timeout=30)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


def start_server(base_dir: str | Path, port: int = 0, settings: dict[str, Any] | None = None) -> Server:
    """Starts a server over the data in `base_dir` and waits until it answers.

    Args:
        base_dir: an empty folder, or one of an earlier server.
        port: where it listens on 127.0.0.1; 0 takes a free one.
        settings: keys of the package's config template, or dotted keys of milvus.yaml, with their values.

    Raises:
        NamespaceError: if it can't be kept off the other interfaces.
        RuntimeError: if it doesn't come up, with the end of its log.
    """
    folder = Path(base_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _unpack()
    settings = settings or {}
    with open(folder / "forwarder.log", "a") as log:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(folder), str(port), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    server = Server(folder, port, process, settings)
    assert process.stdout is not None
    words = process.stdout.readline().split()
    if words[:1] == [READY]:
        server.port = int(words[1])
        _wait_answering(server)
        return server
    answer = " ".join(words)
    server.stop()
    if answer.startswith(NO_NAMESPACE):
        raise NamespaceError(
            f"the Milvus server would listen on all interfaces: {answer}; set {ANY_INTERFACE}=1 to allow that"
        )
    raise RuntimeError(f"Milvus did not start: {answer}\n{_log_tail(folder)}")


def _wait_answering(server: Server) -> None:
    """Waits until the server takes calls: it calls itself healthy a little earlier."""
    import grpc

    end = time.monotonic() + START_S
    while time.monotonic() < end and server.running:
        with grpc.insecure_channel(f"{HOST}:{server.port}") as channel:
            try:
                channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")(b"", timeout=5)
                return
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    return  # it needs a token, for example
        time.sleep(0.1)
    server.stop()
    raise RuntimeError(f"Milvus does not answer\n{_log_tail(server.folder)}")


def _log_tail(folder: Path) -> str:
    texts = [path.read_text(errors="replace")[-1500:] for path in (folder / "forwarder.log", folder / "server.log")]
    return "\n".join(texts)


def _binaries() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "vecbeam-tests" / "milvus-2.3.5"


def _unpack() -> None:
    """Unpacks the package's server once for all sessions of this user; two at once do no harm."""
    import milvus

    if _binaries().exists():
        return
    _binaries().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_binaries().parent) as temporary:
        milvus._initialize_data_files(temporary)
        with contextlib.suppress(OSError):  # another session was quicker
            (Path(temporary) / "bin").rename(_binaries())


# ---- the forwarder's process ----


def _own_namespace() -> None:
    """Moves this process into a network namespace with a loopback and nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Root may do it plainly; others may where the kernel lets users make user namespaces.
    if libc.unshare(_CLONE_NEWNET) != 0 and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, get_flags, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", request)[1]
        fcntl.ioctl(sock, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start_binary(folder: Path, settings: dict[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
    import milvus

    config = milvus.MilvusServerConfig(data_dir=str(folder))
    settings = {**SETTINGS, **settings}
    for key, value in settings.items():
        config.set(key, value)
    config.resolve()
    inside = int(config.get("proxy_port"))
    health, sock = config.resolve_port(9091)
    sock.close()
    # The package's file has only the keys of its template; the server reads every key from the environment.
    keys = {key.upper().replace(".", "_"): str(value) for key, value in settings.items() if "." in key}
    environment = dict(
        os.environ,
        **keys,
        DEPLOY_MODE="STANDALONE",
        METRICS_PORT=str(health),
        MILVUS_RUN_DIR=str(folder / "run"),
        LD_LIBRARY_PATH=f"{_binaries()}:{os.environ.get('LD_LIBRARY_PATH', '')}",
    )
    with open(folder / "server.log", "ab") as log:
        process = subprocess.Popen(
            [str(_binaries() / "milvus"), "run", "standalone"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent,
        )
    _wait_healthy(process, health)
    return process, inside


def _wait_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=5) as answer:
            if b"OK" in answer.read():
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server was not healthy after {START_S} s")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _forward(listener: socket.socket, inside: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, inside)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    async with await asyncio.start_server(serve, sock=listener) as server:
        await server.serve_forever()


def _end_with(parent_stream: Any) -> None:
    parent_stream.read()
    os.killpg(os.getpid(), signal.SIGKILL)


def _main(folder: Path, port: int, settings: dict[str, Any]) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    try:
        _own_namespace()
    except OSError as error:
        if os.environ.get(ANY_INTERFACE) != "1":
            print(NO_NAMESPACE, error, flush=True)
            return
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    process, inside = _start_binary(folder, settings)
    listener.listen(128)
    print(READY, listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (process.wait(), os._exit(1)), daemon=True).start()
    asyncio.run(_forward(listener, inside))


def remove(folder: Path) -> None:
    """Removes a stopped server's data."""
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
