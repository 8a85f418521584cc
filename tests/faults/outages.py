"""Loads into a real Milvus server that is killed every five seconds, and started again: what the collection holds then.

    python tests/faults/outages.py FOLDER --loads 1

The server of the `milvus` package gets a SIGKILL five seconds after it answers, again and again from the first part
that it has acknowledged to the last one. If the load gives up, the same command follows as soon as the server answers.
Prints a JSON line for each load.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from corpora import configure, text, write_jsonl
from milvus_server import Server, start_server

ROWS = 6000
ROWS_OF_A_PART = 200
UP_S = 5.0
COMMANDS = 60


def command(words: str, configuration: Path, output: Path) -> int:
    line = [sys.executable, "-m", "pipelines.entry", *words.split(), str(configuration), "--quiet"]
    with open(output, "a") as stream:
        return subprocess.run(line, stdout=stream, stderr=stream).returncode


class Killer:
    """Kills a server again and again, from when the first rows are in it until it is stopped."""

    def __init__(self, server: Server, ledger: Path) -> None:
        self.server, self.ledger, self.kills = server, ledger, 0
        self.over, self.up = threading.Event(), threading.Event()
        self.up.set()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.wait(0.1):
            if any(self.ledger.glob("*/*.json")):
                break
        while not self.over.is_set() and len(list(self.ledger.glob("*/*.json"))) < ROWS // ROWS_OF_A_PART:
            self.up.clear()
            self.server.kill()
            self.kills += 1
            self.server = self.server.restart()  # returns as soon as it answers
            self.up.set()
            self.over.wait(UP_S)

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def load(folder: Path, server: Server, seed: int) -> tuple[dict[str, object], Server]:
    """One collection loaded while its server is killed; returns the line and the server that runs now."""
    from pymilvus import MilvusClient

    name = f"outage{seed}"
    work = folder / f"{name}-{int(time.time())}"
    write_jsonl(work / "corpus" / "a.jsonl", [{"id": f"{seed}-{n}", "text": text(n)} for n in range(ROWS)])
    collection = {"uri": server.uri, "index": {"type": "HNSW", "M": 8, "efConstruction": 64}, "message_rows": 10}
    configure(work, name=name, batch_rows=ROWS_OF_A_PART, collection=collection)
    configuration, output, runs, code = work / "vecbeam.yaml", work / "output.txt", 0, 1
    begun = time.monotonic()
    with Killer(server, work / "checkpoint" / name / "loads") as killer:
        while code and runs < COMMANDS:
            killer.up.wait()
            runs += 1
            code = command("backfill", configuration, output)
    client = MilvusClient(killer.server.uri, dedicated=True)
    line: dict[str, object] = {"seed": seed, "kills": killer.kills, "commands": runs, "failed": int(code != 0)}
    line["seconds"] = round(time.monotonic() - begun)
    if code == 0:
        client.load_collection(name)
        found = client.query(name, filter='id != ""', output_fields=["id"], limit=16384, consistency_level="Strong")
        total = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]
        have, wanted = {row["id"] for row in found}, {f"{seed}-{n}#0" for n in range(ROWS)}
        faults = {"lost": len(wanted - have), "orphaned": len(have - wanted), "duplicated": total - len(have)}
        line |= faults
    else:
        line["output"] = output.read_text()[-2500:]
    client.close()
    return line, killer.server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loads", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    server = start_server(given.folder / "milvus")
    try:
        for seed in range(given.first, given.first + given.loads):
            line, server = load(given.folder, server, seed)
            print(json.dumps(line), flush=True)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
