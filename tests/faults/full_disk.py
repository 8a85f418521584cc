"""Backfills whose checkpoint is on a disk that is full after one page, two pages, and so on, then with enough space.

    python tests/faults/full_disk.py FOLDER [--first PAGES]

The disk is a tmpfs (root mounts it), one page of memory larger each time, so that each write is once the one that finds
no space. The first backfill must fail with the remedy and leave no temporary file; the same command with enough
space must end as if nothing had happened. Ends with the first disk that is large enough. Prints a JSON line for each.
"""

from __future__ import annotations

import argparse
import json
import mmap
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lives import Life, Place, compare, ready
from worlds import WORLDS

REMEDY = "free some space and run the same command again"
MOST_PAGES = 2000


@contextmanager
def disk(folder: Path, pages: int) -> Iterator[Path]:
    """A file system of so many pages."""
    folder.mkdir(exist_ok=True)
    options = f"size={pages * mmap.PAGESIZE}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def backfill(folder: Path, pages: int, wanted: dict[str, Any]) -> dict[str, object]:
    """A backfill on a small disk, then the same on a larger one, against an undisturbed one."""
    world = WORLDS["texts"]
    with disk(folder / "small", pages) as small:
        life = Life(Place("disk", folder, checkpoint=str(small)), world, f"d{pages}")
        first = life.run("backfill")
        output = (life.folder / "output.txt").read_text()
        line: dict[str, object] = {"seed": pages, "first": first, "complete": first == 0}
        silent = first not in (0, 1) or (first == 1 and (REMEDY not in output or "Traceback" in output))
        left = len(list(small.rglob("*.tmp")))
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        code = life.run("backfill") if first else 0
        faults = compare(life.found() if code == 0 else None, wanted["found"])
        faults["orphaned"] += left
        faults["failed"] += silent
        line |= {"twice": max(0, life.encoded() - wanted["encoded"]), **faults}
        if any(faults.values()):
            line["output"] = (life.folder / "output.txt").read_text()[-2500:]
        else:
            life.end()
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    folder = given.folder.resolve()
    wanted = ready(Place("disk", folder), WORLDS["texts"])["backfill"]
    for pages in range(given.first, MOST_PAGES):
        line = backfill(folder, pages, wanted)
        print(json.dumps(line), flush=True)
        if line["complete"]:
            return


if __name__ == "__main__":
    main()
