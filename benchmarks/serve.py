"""How fast the page of `vecbeam serve` answers.

    python benchmarks/serve.py vecbeam.yaml [--requests 1000] [--at-once 8]

It starts the server over a published collection, and measures from outside: the first page, searches one after another,
and searches of several clients at once. The queries are words of the collection's own rows.
"""

from __future__ import annotations

import argparse
import http.client
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
from common import show

from pipelines.steps.collection.current_rows import current_rows
from schemas.config.loader import load_config

WORDS = 6


def ask(address: str, path: str) -> float:
    """Milliseconds of a request.

    Raises:
        RuntimeError: if it is not answered with 200.
    """
    begun = time.perf_counter()
    place = urlsplit(address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status}")
    return (time.perf_counter() - begun) * 1000


def queries(config: Path, count: int) -> list[str]:
    rows = current_rows(load_config(config))
    texts = next(rows.tables(["text"])).column("text").to_pylist()
    chosen = np.random.default_rng(0).choice(len(texts), count)
    return [f"/?q={quote(' '.join(texts[at].split()[:WORDS]))}" for at in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=8)
    given = parser.parse_args()
    paths = queries(given.config, given.requests)
    command = [sys.executable, "-m", "pipelines.entry", "serve", str(given.config), "--port", "0"]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        started = time.perf_counter() - begun
        try:
            first = ask(address, "/")
            alone = [ask(address, path) for path in paths[: given.requests // 5]]
            with ThreadPoolExecutor(given.at_once) as pool:
                together = list(pool.map(lambda path: ask(address, path), paths))
        finally:
            server.send_signal(signal.SIGINT)
    rows = []
    for name, times in (("one after another", alone), (f"{given.at_once} at once", together)):
        middle, most = np.percentile(times, [50, 95])
        rows.append({"searches": name, "count": len(times), "p50 ms": round(middle, 1), "p95 ms": round(most, 1)})
    print(f"started in {started:.1f} s, first page in {first:.0f} ms")
    show(rows)


if __name__ == "__main__":
    main()
