"""Prints what a corpus costs on the local runner and on a job server: rows, seconds, jobs, bytes between stages.

    python tests/portable/figures.py --files 60 --items 40 --workers 2

Everything runs on this machine: the seconds show what jobs and workers cost to start, not what several machines gain.
Bytes are those of the elements that workers send to the runner, the files of the store not among them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from cluster import Cluster, documents, running


def row(cluster: Cluster, command: str, runner: str, config: Path, sent: dict[str, str | None]) -> str:
    """Runs a command; returns a line of the table."""
    cluster.put(config, sent)
    begun = time.monotonic()
    done = cluster.vecbeam(command, config)
    seconds = time.monotonic() - begun
    assert done.code == 0, done.said
    report, jobs = done.answer, cluster.jobs(done.answer)
    bytes_sent = sum(worker["bytes"] for job in jobs for worker in job["workers"].values())
    embedding = {
        name for job in jobs for name, worker in job["workers"].items() if worker["counters"].get("chunks_embedded")
    }
    counts = (report["verify"]["found"], report["chunks"]["embedded"], len(jobs), sum(job["seconds"] for job in jobs))
    return (
        f"| {command} | {runner} | {counts[0]:,} | {counts[1]:,} | {seconds:.1f} | {counts[2]} | {counts[3]:.1f} "
        f"| {len(embedding) or '-'} | {bytes_sent:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--items", type=int, default=40, help="of each file")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    corpus = documents("figures", given.files, given.items)
    changed = documents("figures", 1, given.items, changed="other")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), workers=given.workers) as cluster:
        print("| command | runner | rows | embedded | seconds | jobs | seconds of jobs | workers that embed | bytes |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for runner, kind in (("local", "local"), (f"portable, {given.workers} workers", "plain")):
            name = kind.replace("plain", "portable")
            config = cluster.configure(name, "figures", kind)
            print(row(cluster, "backfill", runner, config, corpus), flush=True)
            print(row(cluster, "sync", runner, config, changed), flush=True)
            other = cluster.configure(name, "figures", kind, encoder={"model": "fake", "dimensions": 16})
            print(row(cluster, "reindex", runner, other, {}), flush=True)


if __name__ == "__main__":
    main()
