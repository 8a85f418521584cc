"""Models of the open_clip library: images and texts in one space, against the library itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure
from drawings import drawing, encoded, write_drawings
from encoder_checks import check_batches
from open_clip_model import SETTINGS, library, save_open_clip
from PIL import Image

from pipelines.backfill import backfill
from pipelines.index import Index
from pipelines.search import search
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders import resolve, text_inputs
from transforms.encoders.base import media_inputs

pytest.importorskip("open_clip", reason="the extra image is not installed")

TEXTS = ["a cat", "a red square over a blue circle", "two words", "x " * 40]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("open_clip"))


def test_images_and_texts_have_the_library_s_vectors_through_a_run(tmp_path: Path, model: Path) -> None:
    paths = write_drawings(tmp_path / "images", 20)
    config = configure(tmp_path, corpus={"paths": ["images/*.png"]}, encoder={"model": str(model)})
    report = backfill(config)
    assert (report.verify.found, report.verify.recall_at_10) == (20, 1.0)
    images, texts = library(model, [Image.open(path) for path in paths], TEXTS)
    parts = [
        row for part in Path(config.checkpoint).rglob("parts/*.parquet") for row in pq.read_table(part).to_pylist()
    ]
    rows = {row["item_id"]: row["vector"] for row in parts}
    vectors = np.array([rows[path.name] for path in paths])
    assert (vectors * images).sum(axis=1).min() >= 0.9999

    found = resolve(EncoderConfig(model=str(model))).load().encode(text_inputs(TEXTS), query=True)
    assert (found.matrix * texts).sum(axis=1).min() >= 0.9999
    assert found.dropped.tolist() == [0, 0, 0, 42 - 16]
    best = np.argsort(-(images @ texts[1]), kind="stable")[0]
    assert search(config, TEXTS[1], k=1)[0]["item_id"] == paths[best].name
    with Index(str(tmp_path / "vecbeam.yaml")) as index:
        mixed = index.search(["a cat", paths[5]], k=1)
    assert mixed[1][0]["item_id"] == "drawing-005.png"


def test_batches_do_not_change_vectors(model: Path) -> None:
    encoder = resolve(EncoderConfig(model=str(model))).load()
    files = [encoded(drawing(number), "JPEG") for number in range(19)]
    for make, values in ((media_inputs, files), (text_inputs, [*TEXTS, *(f"text {n} " * n for n in range(1, 80))])):
        check_batches(encoder, make, values)


def test_what_it_can_t_do_is_refused_before_reading(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"encoder\.dimensions: 64 is more than"):
        resolve(EncoderConfig(model=str(model), dimensions=64))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "open_clip_config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="with the settings of an open_clip model"):
        resolve(EncoderConfig(model=str(empty)))
    (empty / "open_clip_config.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(ConfigurationError, match="holds no safetensors weights"):
        resolve(EncoderConfig(model=str(empty)))
    damaged = save_open_clip(tmp_path / "damaged")
    weights = damaged / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(EncoderError, match="can't load the model in"):
        resolve(EncoderConfig(model=str(damaged))).load()
