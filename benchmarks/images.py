"""Measures quality and rate on a folder of labelled photographs, through whole runs to Milvus Lite.

    python benchmarks/images.py ../shared/data/images [--json FILE]

The folder holds labels.tsv with the columns `file` and `label`. Quality: copies of half the size, as JPEG of quality
60, that find their original first (efficientnet-lite0); images whose label is the nearest of all labels, and labels
whose image is the nearest row (conse). Rate: images per second of the backfill's embed step, against the encoder alone
over the same files with decoding on all cores, by the median of some rounds.
"""

from __future__ import annotations

import csv
import io
import statistics
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from PIL import Image

from pipelines.backfill import backfill
from pipelines.index import Index
from pipelines.steps.search.queries.query import MediaQuery
from schemas.config import Config, EncoderConfig
from schemas.config.loader import load_config
from transforms.encoders import resolve, text_inputs
from transforms.encoders.base import media_inputs


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with (given.corpus / "labels.tsv").open(encoding="utf-8") as stream:
        labels = {row["file"]: row["label"] for row in csv.DictReader(stream, delimiter="\t")}
    files = [given.corpus / name for name in labels]
    with tempfile.TemporaryDirectory(prefix="vecbeam-images-") as place:
        found = {
            "images": len(files),
            "copies_found": copies_found(configured(Path(place), "efficientnet-lite0", given.corpus), files),
            **text_and_image(configured(Path(place), "conse", given.corpus), labels),
            **rates(Path(place), given.corpus, files, given.rounds),
        }
    common.show([{"measure": name, "value": value} for name, value in found.items()], given.json)


def configured(place: Path, model: str, folder: Path) -> Config:
    name = model.replace("-", "_")
    path = place / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ncorpus: {{paths: ['{folder.resolve()}/*.JPEG'], format: image}}\nencoder: {{model: {model}}}\n"
        f"checkpoint: checkpoint\ncollection: {{uri: ./{name}.db, index: {{type: FLAT}}}}\n"
    )
    return load_config(path)


def copies_found(config: Config, files: list[Path]) -> int:
    backfill(config)
    with Index(str(Path(config.checkpoint).parent / f"{config.name}.yaml")) as index:
        found = index.search([MediaQuery(copy_of(file)) for file in files], k=1)
    return sum(hits[0]["item_id"] == file.name for hits, file in zip(found, files, strict=True))


def copy_of(file: Path) -> bytes:
    image = Image.open(file).convert("RGB")
    stream = io.BytesIO()
    image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=60)
    return stream.getvalue()


def text_and_image(config: Config, labels: dict[str, str]) -> dict[str, float]:
    backfill(config)
    files = list(labels)
    with Index(str(Path(config.checkpoint).parent / f"{config.name}.yaml")) as index:
        found = index.search([labels[file] for file in files], k=1)
    encoder = resolve(EncoderConfig(model="conse")).load()
    folder = Path(str(config.corpus.paths[0])).parent
    images = encoder.encode(media_inputs(str(folder / file) for file in files)).matrix
    texts = encoder.encode(text_inputs([labels[file] for file in files])).matrix
    nearest = (images @ texts.T).argmax(axis=1)
    return {
        "image_to_label_top_1": float(np.mean(nearest == np.arange(len(files)))),
        "text_to_image_recall_1": float(
            np.mean([hits[0]["item_id"] == file for hits, file in zip(found, files, strict=True)])
        ),
    }


def rates(place: Path, folder: Path, files: list[Path], rounds: int) -> dict[str, float]:
    encoder = resolve(EncoderConfig(model="efficientnet-lite0")).load()
    inputs = media_inputs(map(str, files))
    encoder.encode(inputs)
    alone, whole = [], []
    for turn in range(rounds):
        start = time.perf_counter()
        encoder.encode(inputs)
        alone.append(len(files) / (time.perf_counter() - start))
        (place / str(turn)).mkdir()
        report = backfill(configured(place / str(turn), "efficientnet-lite0", folder))
        whole.append(report.rates.per_second)
    return {
        "encoder_images_per_second": round(statistics.median(alone), 1),
        "pipeline_images_per_second": round(statistics.median(whole), 1),
        "pipeline_to_encoder": round(statistics.median(whole) / statistics.median(alone), 3),
    }


if __name__ == "__main__":
    main()
