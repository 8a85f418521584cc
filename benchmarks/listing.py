"""Memory that a corpus of loose files takes on the launcher and on a worker, before any content is read.

    python benchmarks/listing.py --files 100000 1000000 [--folder /dev/shm/listing] [--json FILE]

The files are real, of a few bytes each, a thousand a folder. Each measurement is a process of its own; MB are its
largest resident size less what it had after its imports; pages of temporary files that are mapped count. The launcher
lists the corpus, holds it against a snapshot that has all but one file of a thousand, writes what workers need, plans
the shards, and lists the corpus again as at the end of a run. The worker opens every shard of a full run and looks up
every file of the snapshot. The gathering worker makes the table of what was read of each file, from one record per
shard.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import common

FILES_OF_A_FOLDER = 1_000
NOT_IN_THE_SNAPSHOT = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the files are made; a temporary folder without it")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--measure", choices=[SNAPSHOT, *MEASURES], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure == SNAPSHOT:
        write_snapshot(given.folder)
        return
    if given.measure:
        MEASURES[given.measure](given.folder)
        return
    figures: list[dict[str, Any]] = []
    for files in sorted(given.files):
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            make(Path(name), files)
            subprocess.run([sys.executable, __file__, "--measure", SNAPSHOT, "--folder", name], check=True)
            for measure in MEASURES:
                line = [sys.executable, __file__, "--measure", measure, "--folder", name]
                done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
                figures.append({"files": files, "process": measure, **json.loads(done.stdout)})
    common.show(figures, given.json)


def make(folder: Path, files: int) -> None:
    """Makes files of a few bytes below `folder`/corpus."""
    for start in range(0, files, FILES_OF_A_FOLDER):
        below = folder / "corpus" / f"{start // FILES_OF_A_FOLDER:05d}"
        below.mkdir(parents=True)
        for number in range(start, min(files, start + FILES_OF_A_FOLDER)):
            (below / f"document-{number:08d}.txt").write_bytes(b"a few words")


def configured(folder: Path) -> Any:
    from schemas.config.loader import parse_config

    return parse_config(
        {
            "name": "listing",
            "corpus": {"paths": ["corpus/**/*.txt"]},
            "encoder": {"model": "fake"},
            "checkpoint": "checkpoint",
            "collection": {"uri": "milvus.db"},
        },
        folder=folder,
    )


def peak_mb() -> float:
    """Largest resident size of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_launcher(folder: Path) -> None:
    from pipelines.steps.corpus.source import prepare, settled
    from transforms.read import plan_ranges
    from transforms.support.storage.stored_table import write_rows

    config = configured(folder)
    before, start = peak_mb(), time.perf_counter()
    source = prepare(config)
    assert source.corpus_digest
    base = source.checkpoint.current_snapshot()
    assert base is not None
    write_rows(str(folder / "all.parquet"), source.to_read())
    shards = list(plan_ranges(source.changed, config.corpus))
    (folder / "shards.jsonl").write_text("".join(json.dumps(list(asdict(shard).values())) + "\n" for shard in shards))
    source = source.against(base)
    write_rows(str(folder / "listing.parquet"), source.listing(), by="name")
    write_rows(str(folder / "files.parquet"), source.to_read())
    list(plan_ranges(source.changed, config.corpus))
    assert settled(source, config).all()
    print(json.dumps({"shards": len(shards), **spent(before, start)}))


def write_snapshot(folder: Path) -> None:
    import pyarrow as pa

    from pipelines.steps.corpus.source import prepare
    from schemas.records import FILE_SCHEMA, PART_SCHEMA

    source = prepare(configured(folder))
    known = source.files.slice(0, source.files.num_rows - source.files.num_rows // NOT_IN_THE_SNAPSHOT)
    count = known.num_rows
    errors, rejects = (pa.array([[]] * count, FILE_SCHEMA.field(name).type) for name in ("errors", "rejects"))
    columns = {
        "path": known.column("name").cast(pa.string()),
        "size": known.column("size"),
        "modified": known.column("modified"),
        "items_read": pa.array([1] * count),
        "errors": errors,
        "rejects": rejects,
        "complete": pa.array([True] * count),
        "version": pa.nulls(count, pa.string()),
    }
    files = pa.table(columns, schema=FILE_SCHEMA)
    checkpoint, parts = source.checkpoint, PART_SCHEMA.empty_table()
    checkpoint.write_snapshot(checkpoint.draft_snapshot(parts, files, "0" * 64, source.settings_digest)[0])


def measure_worker(folder: Path) -> None:
    from transforms.read import ShardFiles, ShardRange
    from transforms.support.storage.stored_table import StoredTable

    # Shards as Beam hands them to a worker, one after the other.
    shards = (ShardRange(*json.loads(line)) for line in (folder / "shards.jsonl").open())
    before, start = peak_mb(), time.perf_counter()
    stored, listing = ShardFiles(str(folder / "all.parquet")), StoredTable(str(folder / "listing.parquet"))
    count = 0
    for shard in shards:
        opened = stored.open(shard)
        found = listing.find("name", opened.names)
        assert [found[name]["position"] for name in opened.names] == list(opened.positions)
        count += 1
    print(json.dumps({"shards": count, **spent(before, start)}))


def measure_gathering_worker(folder: Path) -> None:
    from schemas.records import Key, ReadRecord
    from transforms.embed.record import record_tables
    from transforms.read import ShardFiles, ShardRange
    from transforms.support.storage.parquet_file import write_table

    stored = ShardFiles(str(folder / "all.parquet"))
    before, start = peak_mb(), time.perf_counter()
    shards = (ShardRange(*json.loads(line)) for line in (folder / "shards.jsonl").open())
    opened = map(stored.open, shards)
    records = (ReadRecord(Key(one.name, 0), tuple((file.shown, 1) for file in one.files)) for one in opened)
    _, files = record_tables(records)
    write_table(str(folder / "records.parquet"), files)
    print(json.dumps({"shards": "", **spent(before, start)}))


def spent(before: float, start: float) -> dict[str, Any]:
    return {"MB": round(peak_mb() - before), "seconds": round(time.perf_counter() - start, 1)}


SNAPSHOT = "snapshot"
MEASURES = {"launcher": measure_launcher, "worker": measure_worker, "gathering worker": measure_gathering_worker}

if __name__ == "__main__":
    main()
