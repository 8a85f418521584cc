"""Lives of a collection whose checkpoint is on a disk with one free page, two pages, and so on, then with enough space.

    python tests/faults/full_disk.py FOLDER [--first PAGES]

The disk is a tmpfs (root mounts it). Before each command it has so many free pages of memory, one more in each life, so
that each write is once the one that finds no space. The command must fail with the remedy and leave no
temporary file; the same command with enough space must end as if nothing had happened. Ends with the first life in
which each command has enough. Prints a JSON line for each command.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lives import COMMANDS, CORPORA, FAULTS, Life, Place, compare, ready
from worlds import WORLDS

REMEDY = "free some space and run the same command again"
MOST_PAGES = 2000
ENOUGH = "size=64m"


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A file system with space for everything."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ENOUGH, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave_free(folder: Path, pages: int) -> None:
    """Makes a file system so small that it has only so many pages free."""
    state = os.statvfs(folder)
    size = (state.f_blocks - state.f_bfree) * state.f_frsize + pages * mmap.PAGESIZE
    remount(folder, f"size={size}")


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def run(life: Life, command: str, small: Path, pages: int, wanted: dict[str, Any]) -> dict[str, object]:
    """A command on a disk with so many free pages, then with enough, against an undisturbed one."""
    life.configure(CORPORA[command])
    leave_free(small, pages)
    first = life.run(command)
    output = (life.folder / "output.txt").read_text()
    line: dict[str, object] = {"seed": pages, "command": command, "first": first, "complete": first == 0}
    silent = first not in (0, 1) or (first == 1 and (REMEDY not in output or "Traceback" in output))
    left = [path.name for path in small.rglob("*.tmp")]
    remount(small, ENOUGH)
    code = life.run(command) if first else 0
    faults = compare(life.found() if code == 0 else None, wanted["found"])
    faults["orphaned"] += len(left)
    faults["failed"] += silent
    line |= {"twice": max(0, life.encoded() - wanted["encoded"]), **faults}
    if any(faults.values()):
        line |= {"left": left, "silent": silent, "output": output[-1500:]}
    return line


def live(folder: Path, pages: int, reference: dict[str, Any]) -> Iterator[dict[str, object]]:
    """A life, to its first fault."""
    with disk(folder / "small") as small:
        life = Life(Place("disk", folder, checkpoint=str(small)), WORLDS["texts"], f"d{pages}")
        for command in COMMANDS:
            line = run(life, command, small, pages, reference[command])
            yield line
            if any(line[fault] for fault in FAULTS):
                return
        life.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=1)
    given = parser.parse_args()
    folder = given.folder.resolve()
    reference = ready(Place("disk", folder), WORLDS["texts"])
    for pages in range(given.first, MOST_PAGES):
        complete = True
        for line in live(folder, pages, reference):
            print(json.dumps(line), flush=True)
            complete &= bool(line["complete"])
        if complete:
            return


if __name__ == "__main__":
    main()
