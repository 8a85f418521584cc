"""Removes the ledger of a load, a small file per part, and prints the time: `python benchmarks/ledger.py FOLDER`.

FOLDER is a folder on a disk, or of an object store (s3://bucket/folder). `--named` removes the files by their names,
after a listing of them: what vecbeam did before it removed the folder.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transforms.support.storage import filesystem


def fill(folder: str, parts: int) -> None:
    """Writes the files; on a disk without syncing each of them."""
    if filesystem.is_local(folder):
        Path(folder).mkdir(parents=True)
        for at in range(parts):
            Path(folder, f"docs-{at:06d}-0.parquet.json").write_text('{"rows": 2048}')
        return
    uris = [filesystem.join(folder, f"docs-{at:06d}-0.parquet.json") for at in range(parts)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: filesystem.write_atomic(uri, b'{"rows": 2048}'), uris))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--parts", type=int, default=500_000)
    parser.add_argument("--named", action="store_true")
    given = parser.parse_args()
    folder = filesystem.join(given.folder, "ledger")
    fill(folder, given.parts)
    wall, processor = time.perf_counter(), time.process_time()
    if given.named:
        filesystem.delete([file.uri for file in filesystem.list_files(folder, "*.json")])
        filesystem.remove_empty_folders(folder, given.folder)
    else:
        filesystem.delete_folder(folder)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{given.parts:,} parts: {wall:.1f} s, of them {processor:.1f} s of this process")


if __name__ == "__main__":
    main()
