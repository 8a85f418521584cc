"""Spoken digits through the whole pipeline: whether the nearest recording has the same digit, or the same speaker.

    python benchmarks/digits.py ../shared/data/digits [--model whisper-base resemblyzer]

The folder holds recordings named DIGIT_SPEAKER_NUMBER.wav. Each is embedded by `backfill` into Milvus Lite; its nearest
neighbour is the best of an exact search in that collection. `digit` counts neighbours that say the same digit, `digit,
others` those among the recordings of other speakers, and `speaker` those of the same speaker. `found again` counts
recordings that are the nearest of their own copies at half volume, with noise 40 dB below the speech (seeded).
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipelines.backfill import backfill
from pipelines.steps.collection.served import open_for_search, served_state
from schemas.config import Config
from schemas.config.loader import parse_config
from transforms import milvus
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs

MODELS = ("whisper-base", "resemblyzer")


class Figures(NamedTuple):
    """Shares of nearest neighbours, and the rate of the embedding."""

    digit: float
    digit_of_others: float
    speaker: float
    found_again: float
    seconds: float


def configuration(folder: Path, work: Path, model: str) -> Config:
    """All recordings of a folder, one row each."""
    return parse_config(
        {
            "name": "digits",
            "corpus": {"paths": [str(folder.resolve() / "*.wav")], "format": "audio"},
            "encoder": {"model": model},
            "checkpoint": str(work / "checkpoint"),
            "collection": {"uri": str(work / "milvus.db"), "index": {"type": "FLAT"}},
        }
    )


def vectors_of(config: Config) -> tuple[list[str], NDArray[np.float32]]:
    """The ids and vectors of the rows of the collection."""
    with milvus.connected(config.collection) as connection:
        state = served_state(connection, config)
        open_for_search(connection, state.name)
        rows = connection.client.query(state.name, filter="", output_fields=["item_id", "vector"], limit=16_384)
    return [row["item_id"] for row in rows], np.array([row["vector"] for row in rows], np.float32)


def measured(folder: Path, model: str) -> Figures:
    """Embeds the recordings and counts neighbours."""
    with tempfile.TemporaryDirectory() as work:
        config = configuration(folder, Path(work), model)
        start = time.perf_counter()
        backfill(config)
        seconds = time.perf_counter() - start
        names, vectors = vectors_of(config)
        copies = [quiet_and_noisy(folder / name, seed) for seed, name in enumerate(names)]
        queries = resolve(config.encoder).load().encode(media_inputs(copies), query=True).matrix
    again = (queries @ vectors.T).argmax(axis=1) == np.arange(len(names))
    digits = np.array([name.split("_")[0] for name in names])
    speakers = np.array([name.split("_")[1] for name in names])
    near = vectors @ vectors.T
    np.fill_diagonal(near, -np.inf)
    nearest = near.argmax(axis=1)
    others = np.where(speakers[:, None] == speakers[None, :], -np.inf, near).argmax(axis=1)
    return Figures(
        float((digits[nearest] == digits).mean()),
        float((digits[others] == digits).mean()),
        float((speakers[nearest] == speakers).mean()),
        float(again.mean()),
        seconds,
    )


def quiet_and_noisy(path: Path, seed: int) -> bytes:
    """A wav file of a recording at half volume with white noise of a hundredth of its root mean square."""
    samples, rate = soundfile.read(path, dtype="float32")
    noise = np.random.default_rng(seed).standard_normal(samples.shape)
    half = samples / 2
    stream = io.BytesIO()
    soundfile.write(stream, half + noise * np.sqrt(np.mean(half**2)) / 100, rate, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def main() -> None:
    """Prints a table of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=MODELS)
    given = parser.parse_args()
    print("| model | digit | digit, others | speaker | found again | seconds |\n|---|---|---|---|---|---|", flush=True)
    for model in given.model:
        found = measured(given.folder, model)
        shares = " | ".join(f"{share:.3f}" for share in found[:4])
        print(f"| {model} | {shares} | {found.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
