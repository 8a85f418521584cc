"""Processor time of a small sync: its graphs on the calling thread, and by Beam's own local runner.

python benchmarks/small_sync.py --syncs 12

The two take turns in one process, so that a busy machine slows both. Each sync finds ten new texts; the encoder is the
fake one, and the collection is in Milvus Lite, whose server in this process counts too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import vecbeam
from pipelines.run.jobs import beam_classes
from transforms import milvus

RUNNERS: dict[str, dict[str, Any]] = {"thread": {"name": "local"}, "Beam": {"name": "local", "direct_num_workers": 1}}
WORDS = "collection vector corpus shard batch part snapshot index alias gate reject chunk item encoder space"


def write(folder: Path, items: int) -> None:
    """Writes a file of some texts."""
    words = WORDS.split()
    lines = [
        json.dumps({"id": str(at), "text": " ".join(words[(at + k * (1 + at % 7)) % len(words)] for k in range(30))})
        for at in range(items)
    ]
    (folder / "texts").mkdir(exist_ok=True)
    (folder / "texts" / "a.jsonl").write_text("\n".join(lines) + "\n")


def configured(folder: Path, runner: dict[str, Any]) -> vecbeam.Config:
    """The configuration of one of the two."""
    return vecbeam.parse_config(
        {
            "name": "small",
            "corpus": {"paths": [str(folder / "texts" / "*.jsonl")]},
            "encoder": {"model": "fake", "dimensions": 16},
            "checkpoint": str(folder / "checkpoint"),
            "collection": {"uri": str(folder / "milvus.db"), "index": {"type": "FLAT"}},
            "runner": runner,
        }
    )


def main() -> None:
    """Prints the processor time of each and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--syncs", type=int, default=12, help="of each")
    parser.add_argument("--items", type=int, default=10, help="new ones in each")
    given = parser.parse_args()
    beam_classes.remember()  # as the command line does
    spent: dict[str, list[float]] = {name: [] for name in RUNNERS}
    with tempfile.TemporaryDirectory() as place:
        configs = {}
        for name, runner in RUNNERS.items():
            (Path(place) / name).mkdir()
            write(Path(place) / name, 200)
            configs[name] = configured(Path(place) / name, runner)
            vecbeam.sync(configs[name])
        for turn in range(1, given.syncs + 2):
            for name, config in configs.items():
                write(Path(place) / name, 200 + turn * given.items)
                began = time.process_time()
                report = vecbeam.sync(config)
                if turn > 1:  # the first imports
                    spent[name].append(time.process_time() - began)
                assert report.items.new == given.items
        for config in configs.values():
            milvus.release(config.collection)
    for name, seconds in spent.items():
        print(f"{name}: {1000 * statistics.median(seconds):.0f} ms median, {1000 * min(seconds):.0f} ms least")
    ratios = [beam / own for own, beam in zip(spent["thread"], spent["Beam"], strict=True)]
    print(f"Beam / thread: {statistics.median(ratios):.2f} median, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
