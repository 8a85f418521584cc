"""Memory and rate of one film through the whole pipeline, by its length.

    python benchmarks/films.py [--minutes 5 60] [--frames 4] [--model efficientnet-lite0]

Makes films of 320 x 180 pixels at 5 frames per second in H.264, and runs `backfill` on each in a process of its own
into Milvus Lite, in segments of 10 s. `peak MB` is the report's peak_rss_mb, the largest resident size of the process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

SIZE = (320, 180)
RATE = 5


def make(path: Path, seconds: int) -> None:
    """Writes a film: colours that drift, and another picture every 20 s."""
    import av

    across, down = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "35"})
        picture.width, picture.height = SIZE
        picture.pix_fmt = "yuv420p"
        for number in range(seconds * RATE):
            scene = number // (20 * RATE)
            planes = [across * (1 + scene % 3) + number, down * (1 + scene % 5) - number, across + down + 40 * scene]
            pixels = np.stack(planes, axis=2).astype(np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(picture.encode(None))


def measure(work: Path, minutes: int, frames: int, model: str) -> dict[str, float]:
    """Makes a film, and runs it through the pipeline."""
    films = work / "films"
    films.mkdir(parents=True)
    make(films / "film.mp4", minutes * 60)
    settings = {
        "name": "films",
        "corpus": {"paths": ["films/*"], "format": "video"},
        "chunk": {"seconds": 10},
        "encoder": {"model": model, "frames": frames},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
    }
    (work / "vecbeam.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "vecbeam", "backfill", str(work / "vecbeam.yaml"), "--json"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {
        "MB": (films / "film.mp4").stat().st_size / 1e6,
        "segments": report["chunks"]["embedded"],
        "peak": report["peak_rss_mb"],
        "rate": minutes * 60 / report["seconds"]["embed"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, nargs="+", default=[5, 60])
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--model", default="efficientnet-lite0")
    given = parser.parse_args()
    print("| minutes | MB | segments | peak MB | to the first | film seconds per second |\n|---|---|---|---|---|---|")
    first = 0.0
    for minutes in given.minutes:
        with tempfile.TemporaryDirectory() as work:
            found = measure(Path(work), minutes, given.frames, given.model)
        first = first or found["peak"]
        size, peak = f"{found['MB']:.1f} | {found['segments']}", f"{found['peak']:,.0f} | {found['peak'] / first:.2f}"
        print(f"| {minutes} | {size} | {peak} | {found['rate']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
