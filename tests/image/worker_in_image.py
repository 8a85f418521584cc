"""Runs a backfill whose workers are in an image, and compares it with a local run: ids, hashes and vectors.

    python tests/image/worker_in_image.py FOLDER [--image localhost/vecbeam-cpu] [--rows 200]

In a network namespace of its own there are Beam's Python job server, Milvus Lite over TCP, and the image's worker pool,
started as Kubernetes starts it: entry point, `--worker_pool`, the image's own user. The launcher runs on this machine.
FOLDER is on both sides under the same path; nothing else of this machine is in the image.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from images import ENVIRONMENT, ImageError, check_tools, run

JOBS, MILVUS, POOL = 8099, 19530, 50000
START_S = 180.0
TOLERANCE = 1e-5
"""Of the cosine between vectors of float32 by the same engine, in two processes."""
INSIDE = "VECBEAM_TEST_IMAGE_INSIDE"


def write_corpus(folder: Path, rows: int) -> None:
    """Texts of different lengths, made of a few words by their number."""
    words = ["harbour", "lantern", "meadow", "copper", "violin", "glacier", "orchard", "falcon", "marble", "thunder"]
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for row in range(rows):
            text = " ".join(words[(row * 7 + place * (1 + row % 9)) % 10] for place in range(3 + row % 40))
            file.write(json.dumps({"id": f"d{row}", "text": f"{text} {row}."}) + "\n")


def configuration(folder: Path, name: str, **more: Any) -> Path:
    values = {
        "name": name,
        "corpus": {"paths": [str(folder / "corpus.jsonl")], "content": ["text"]},
        "encoder": {"model": "all-MiniLM-L6-v2", "engine": "torch"},
        "checkpoint": str(folder / "checkpoints"),
        "collection": {"uri": f"http://127.0.0.1:{MILVUS}"},
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@contextlib.contextmanager
def started(name: str, folder: Path, port: int, *command: str) -> Iterator[None]:
    """A server, from when it listens to the end of the block; its output is in FOLDER/NAME.log.

    Raises:
        ImageError: if it ends, or does not listen in time.
    """
    import socket

    log = folder / f"{name}.log"
    with open(log, "wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **ENVIRONMENT})
    try:
        limit = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if server.poll() is not None or time.monotonic() > limit:
                raise ImageError(f"{name} does not listen on port {port}:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def backfill(path: Path) -> tuple[dict[str, Any], float]:
    """The report of a backfill, and its seconds."""
    start = time.monotonic()
    command = [str(Path(sys.executable).parent / "vecbeam"), "backfill", str(path), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONSAFEPATH": "1"})
    report: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        raise ImageError(f"{path.name} ended with {done.returncode}: {report['error']}")
    return report, time.monotonic() - start


def rows_of(folder: Path, name: str) -> pa.Table:
    """All rows of a checkpoint, by id."""
    parts = sorted((folder / "checkpoints" / name).rglob("parts/*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts]).sort_by("id")


def compare(here: pa.Table, there: pa.Table) -> dict[str, float]:
    """How far the rows of two runs are apart; raises AssertionError if they are not the same."""
    assert here.column_names == there.column_names
    for name in here.column_names:
        if name != "vector" and not name.startswith("@"):
            assert here[name].to_pylist() == there[name].to_pylist(), name
    one, other = (
        np.stack(table["vector"].to_numpy(zero_copy_only=False)).astype(np.float64) for table in (here, there)
    )
    cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosines.min() > 1 - TOLERANCE, cosines.min()
    return {
        "rows": here.num_rows,
        "smallest cosine": float(cosines.min()),
        "largest difference": float(abs(one - other).max()),
    }


def inside(folder: Path, image: str, rows: int) -> None:
    """The run, in the namespace."""
    run("ip", "link", "set", "lo", "up")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_corpus(folder, rows)
    (folder / "checkpoints").mkdir()
    folder.chmod(0o777)
    (folder / "checkpoints").chmod(0o777)
    portable = {
        "name": "portable",
        "job_endpoint": f"127.0.0.1:{JOBS}",
        "environment_type": "EXTERNAL",
        "environment_config": f"127.0.0.1:{POOL}",
        "mounted": [str(folder)],
        "local_below": 0,  # each step is a job
    }
    os.umask(0)  # the image's user writes into folders that the launcher makes
    container = run("buildah", "from", "--pull=never", image).strip()
    programs = Path(sys.executable).parent
    milvus = (str(programs / "milvus-lite"), "server", "--data-dir", str(folder / "milvus"), "--host", "127.0.0.1")
    jobs = (sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", f"--port={JOBS}")
    entry = json.loads(run("buildah", "inspect", container))["OCIv1"]["config"]["Entrypoint"]
    pool = ("buildah", "run", f"--volume={folder}:{folder}", container, "--", *entry, "--worker_pool")
    try:
        with (
            started("milvus", folder, MILVUS, *milvus, "--port", str(MILVUS)),
            started("jobs", folder, JOBS, *jobs),
            started("pool", folder, POOL, *pool),
        ):
            _, local_s = backfill(configuration(folder, "local"))
            report, image_s = backfill(configuration(folder, "image", runner=portable))
            assert report["jobs"], "no job ran elsewhere"
    finally:
        subprocess.run(["buildah", "rm", container], env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL)
    owners = {path.stat().st_uid for path in (folder / "checkpoints" / "image").rglob("parts/*.parquet")}
    assert owners == {10001}, f"parts were written by {owners}, not by the image's user"
    found = compare(rows_of(folder, "local"), rows_of(folder, "image"))
    print(f"local run      {local_s:6.1f} s")
    print(f"image's worker {image_s:6.1f} s")
    for name, value in found.items():
        print(f"{name:<20}{value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image", default="localhost/vecbeam-cpu")
    parser.add_argument("--rows", type=int, default=200)
    given = parser.parse_args()
    check_tools()
    if not os.environ.get(INSIDE):
        # The servers of Beam listen on all addresses.
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    inside(given.folder.absolute() / "run", given.image, given.rows)


if __name__ == "__main__":
    try:
        main()
    except ImageError as error:
        sys.exit(f"error: {error}")
