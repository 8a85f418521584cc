"""Thousands of files, split anywhere and read in blocks of any size: do they give what the whole file gives?

    python benchmarks/splitting.py --files 5000

Runs the property of tests/test_splitting.py with other files each time: well-formed and broken JSONL, CSV, TSV and
Parquet, with quotes, line ends of all kinds, characters of several bytes and texts longer than a block. Each is read
whole, in small blocks, and split. The first file that differs ends the run, and is printed as small as can be.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    arguments = parser.parse_args()
    os.environ["VECBEAM_SPLIT_FILES"] = str(arguments.files)
    sys.path.insert(0, str(TESTS))
    import test_splitting as property_test

    counts: Counter[str] = Counter()
    read_one = property_test.outcome

    def counted(file: property_test.File, shard_bytes: int, block_bytes: int) -> tuple[list[object], list[object], int]:
        found: tuple[list[object], list[object], int] = read_one(file, shard_bytes, block_bytes)
        counts.update({"readings": 1, "split": found[2] > 1, "shards": found[2], "rejects": len(found[1])})
        counts["items"] += len(found[0])
        return found

    property_test.outcome = counted
    begin = time.monotonic()
    property_test.test_a_file_split_anywhere_is_the_whole_one()
    print(
        f"{arguments.files:,} files, {counts['readings']:,} readings, {counts['split']:,} of them split into shards "
        f"({counts['shards']:,} shards in all): {counts['items']:,} items and {counts['rejects']:,} rejects, "
        f"0 lost, 0 doubled, 0 different ({time.monotonic() - begin:.0f} s)"
    )


if __name__ == "__main__":
    main()
