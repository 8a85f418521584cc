"""Hours of sound per hour, and memory, of recordings through the whole pipeline and through the encoder alone.

    python benchmarks/recordings.py ../shared/data/digits [--minutes 20] [--rounds 3] [--model MODEL ...]

The recordings of the folder are joined, in a seeded order, to wav files of two minutes, until there are so many
minutes. `pipeline` is the embed step of `backfill` into Milvus Lite, in windows of 30 s. `command` is the same with the
time of the whole command, its start and the load of the model included. `alone` is the encoder over the same windows
in one table, decoding included, in a process of its own that has loaded the model before. Rates are medians of some
rounds, in which the two take turns. `per CPU hour` counts the processor time of `alone`, and of the whole command:
other work of the machine hardly changes it. `peak MB` is the largest resident size of a process in any round.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import soundfile
import yaml

from schemas.config import EncoderConfig
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs

MODELS = ("whisper-base", "resemblyzer")
FILE_SECONDS, WINDOW_SECONDS = 120, 30


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(given.corpus, given.alone)))
        return
    with tempfile.TemporaryDirectory() as name:
        sounds = Path(name) / "sounds"
        join(given.corpus, sounds, given.minutes)
        common.show([measured(Path(name) / model, sounds, model, given.rounds) for model in given.model], given.json)


def join(corpus: Path, folder: Path, minutes: int) -> None:
    """Writes files of `FILE_SECONDS` seconds."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = random.permutation(np.array(sorted(map(str, corpus.glob("*.wav")))))
    given = cycle(soundfile.read(path, dtype="int16") for path in paths)
    kept = np.empty(0, np.int16)
    for number in range(minutes * 60 // FILE_SECONDS):
        while True:
            samples, rate = next(given)
            kept = np.concatenate([kept, samples])
            if len(kept) >= FILE_SECONDS * rate:
                break
        soundfile.write(folder / f"{number:04d}.wav", kept[: FILE_SECONDS * rate], rate)
        kept = kept[FILE_SECONDS * rate :]


def measured(work: Path, sounds: Path, model: str, rounds: int) -> dict[str, Any]:
    """The figures of one model."""
    line = [sys.executable, __file__, str(sounds), "--alone", model]
    by_itself, pipeline, command, busy, peaks = [], [], [], [], []
    for turn in range(rounds):
        by_itself.append(json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout))
        before = processor_seconds()
        seconds, report = common.vecbeam("backfill", configuration(work / str(turn), sounds, model))
        heard = report["sound"]["embedded"]
        pipeline.append(heard / report["seconds"]["embed"])
        command.append(heard / seconds)
        busy.append(heard / (processor_seconds() - before))
        peaks.append(report["peak_rss_mb"])
    rate = statistics.median(one["rate"] for one in by_itself)
    return {
        "model": model,
        "minutes": heard / 60,
        "alone": rate,
        "pipeline": statistics.median(pipeline),
        "to alone": statistics.median(pipeline) / rate,
        "command": statistics.median(command),
        "per CPU hour, alone": statistics.median(one["busy"] for one in by_itself),
        "per CPU hour, command": statistics.median(busy),
        "peak MB alone": max(one["peak"] for one in by_itself),
        "peak MB": max(peaks),
    }


def processor_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def configuration(work: Path, sounds: Path, model: str) -> Path:
    """Writes a configuration for the files; returns its path."""
    work.mkdir(parents=True)
    settings = {
        "name": "recordings",
        "corpus": {"paths": [f"{sounds}/*.wav"], "format": "audio"},
        "chunk": {"seconds": WINDOW_SECONDS},
        "encoder": {"model": model},
        "checkpoint": "checkpoint",
        "collection": {"uri": "./milvus.db", "index": {"type": "FLAT"}},
    }
    path = work / "vecbeam.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def alone(sounds: Path, model: str) -> dict[str, float]:
    """Seconds of sound per second, and the peak of this process in MB."""
    encoder = resolve(EncoderConfig(model=model)).load()
    starts = range(0, FILE_SECONDS, WINDOW_SECONDS)
    places = [(str(path), start) for path in sorted(sounds.iterdir()) for start in starts]
    begins = pa.array([float(start) for _, start in places])
    ends = pa.array([float(start + WINDOW_SECONDS) for _, start in places])
    inputs = media_inputs(path for path, _ in places)
    for field, values in (("start", begins), ("end", ends), ("seconds_dropped", pa.array([0.0] * len(places)))):
        inputs = inputs.append_column(field, values)
    encoder.encode(inputs.slice(0, 1))
    wall, processor = time.perf_counter(), time.process_time()
    heard = float(encoder.encode(inputs).amount.sum()) / 1000
    return {
        "rate": heard / (time.perf_counter() - wall),
        "busy": heard / (time.process_time() - processor),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    main()
