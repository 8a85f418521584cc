"""Small files and a long listing on an S3 server: through obstore, as vecbeam does it, and through Beam's filesystem.

    python benchmarks/storage.py --files 200 --keys 10000

The server is moto's, a process of its own on the loopback. Each side is a process of its own too; what one of them
needs once, its imports and its first client, does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import common

BUCKET = "bench"
DATA = b"x" * 4096
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
SERVER = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server
backend = s3_backends["123456789012"]["global"]
backend.create_bucket("bench", "us-east-1")
for number in range(int(sys.argv[2])):
    backend.put_object("bench", f"many/{number:07d}.txt", b"x")
app = DomainDispatcherApplication(create_backend_app)
make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True).serve_forever()
"""


@contextlib.contextmanager
def s3_server(keys: int) -> Iterator[str]:
    """Address of an S3 server with so many objects below `many/`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(keys)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def timed(found: dict[str, Any], name: str) -> Iterator[None]:
    """Notes the seconds of a block, and those of this process's CPU time, which other programs disturb less."""
    start, cpu = time.perf_counter(), time.process_time()
    yield
    found[f"{name}_s"] = time.perf_counter() - start
    found[f"{name}_cpu_s"] = time.process_time() - cpu


def measure(side: str, address: str, files: int) -> dict[str, Any]:
    """Seconds of writing, reading and listing through one side, in this process."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    from transforms.support.storage import filesystem
    from transforms.support.storage.remote import beam_file

    os.environ.update(CREDENTIALS)
    options = {"s3_endpoint_url": address, "s3_region_name": "us-east-1"}
    FileSystems.set_options(PipelineOptions.from_dictionary(options))

    def read_by_beam(uri: str) -> bytes:
        with beam_file.open_file(uri) as stream:
            data: bytes = stream.read()
        return data

    write: Callable[[str, bytes], None] = filesystem.write_atomic if side == "obstore" else beam_file.write
    read = filesystem.read_bytes if side == "obstore" else read_by_beam
    root = f"s3://{BUCKET}/{side}"
    write(f"{root}/first", DATA)
    assert read(f"{root}/first") == DATA
    found: dict[str, Any] = {"through": side, "files": files}
    with timed(found, "write"):
        for number in range(files):
            write(f"{root}/{number}", DATA)
    with timed(found, "read"):
        for number in range(files):
            assert read(f"{root}/{number}") == DATA
    prefix = f"s3://{BUCKET}/many/"
    names = filesystem.iterate(f"{prefix}*.txt") if side == "obstore" else beam_file.begin_with(prefix)
    with timed(found, "list"):
        found["keys"] = sum(1 for _ in names)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.side, given.address, given.files)))
        return
    with s3_server(given.keys) as address:
        for side in ("beam", "obstore"):
            command = [sys.executable, __file__, "--files", str(given.files)]
            done = subprocess.run(
                [*command, "--side", side, "--address", address], stdout=subprocess.PIPE, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            assert found["keys"] == given.keys
            common.show([found])


if __name__ == "__main__":
    main()
