"""Memory and time of media that are not one file per item: tars, compressed or not, and Parquet files with bytes.

    python benchmarks/members.py --members 500 6000 [--bytes 100000] [--folder /dev/shm/members]

The files are made first, with members of random bytes. Each measurement is a process of its own: it reads all items as
a run does, and then all bytes of each item by its locator. MB are the largest resident size less what the process had
after its imports.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FASTEST: dict[str, dict[str, Any]] = {".tar": {}, ".gz": {"compresslevel": 1}}
FORMATS = ("tar", "tar.gz", "parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[500, 6_000])
    parser.add_argument("--bytes", type=int, default=100_000, help="of each member")
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary folder without it")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(f"{'file':10}{'MB':>8}{'items':>10}{'memory':>10}{'seconds':>10}")
        for format in FORMATS:
            for count in given.members:
                path = Path(folder, f"0.{format}")
                {"tar": write_tar, "tar.gz": write_tar, "parquet": write_parquet}[format](path, count, given.bytes)
                ran = subprocess.run(
                    [sys.executable, __file__, "--measure", str(path)], check=True, capture_output=True, text=True
                )
                found = json.loads(ran.stdout)
                size = path.stat().st_size / 1e6
                print(f"{format:10}{size:8,.0f}{found['items']:10,}{found['mb']:7,.0f} MB{found['seconds']:10.1f}")


def write_tar(path: Path, count: int, size: int) -> None:
    random = np.random.default_rng(0)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", **FASTEST[path.suffix]) as tar:
        for number in range(count):
            for end, data in (("jpg", random.bytes(size)), ("json", b'{"caption": "a caption"}')):
                info = tarfile.TarInfo(f"{number:09d}.{end}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def write_parquet(path: Path, count: int, size: int) -> None:
    random = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), ("photo", pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, count, 100):
            ids = list(range(first, min(first + 100, count)))
            writer.write_table(pa.table([ids, [random.bytes(size) for _ in ids]], schema=schema))


def measure(path: Path) -> dict[str, float]:
    from schemas.config import Corpus
    from transforms.encoders.media.content import contents, read
    from transforms.read import list_corpus, plan_shards, read_shard

    media = {"media": "photo"} if path.suffix == ".parquet" else {}
    corpus = Corpus.model_validate({"paths": [str(path)], **media})
    before, start, items = peak(), time.perf_counter(), 0
    for shard in plan_shards(list_corpus(corpus), corpus):
        for batch in read_shard(shard, corpus, batch_rows=2048):
            items += batch.items.num_rows
            for address, data in contents(batch.items):
                _ = read(address) if data is None else data
    return {"items": items, "mb": peak() - before, "seconds": time.perf_counter() - start}


def peak() -> float:
    # Not ru_maxrss, which begins with the size of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


if __name__ == "__main__":
    main()
