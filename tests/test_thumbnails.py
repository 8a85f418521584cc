"""Small pictures next to the parts: made, kept by sync and merging, shown by the page, removed by gc."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure
from drawings import drawing, encoded, save_timm_model, write_drawings
from films import film
from PIL import Image
from recordings import encoded as encoded_tune
from recordings import save_whisper, tune

from pipelines.backfill import backfill
from pipelines.gc import gc
from pipelines.reindex import reindex
from pipelines.sync import sync
from pipelines.verify import verify
from pipelines.web.row_media import NoMediaError, picture_of
from pipelines.web.site import Site
from schemas.config import Config
from schemas.errors import ConfigurationError
from schemas.modality import Modality
from transforms.checkpoint import Checkpoint
from transforms.checkpoint.merge import Merge, MergeParts
from transforms.checkpoint.thumbnails import read_thumbnails
from transforms.encoders.media import thumbnail as small
from transforms.encoders.media.thumbnail import MOST_BYTES, SIDE, thumbnail

for module in ("av", "timm", "soundfile", "soxr"):
    pytest.importorskip(module, reason="the extras video, image and audio are not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


def kept(folder: str, name: str = "checkpoint") -> dict[str, Any]:
    return {"checkpoint": {"folder": f"{folder}/{name}", "thumbnails": True}}


def pictures(config: Config) -> dict[str, bytes | None]:
    files = Path(config.checkpoint).rglob("thumbnails/*.parquet")
    return {row["id"]: row["thumbnail"] for file in sorted(files) for row in pq.read_table(file).to_pylist()}


def opened(data: bytes | None) -> Image.Image:
    assert data is not None
    assert len(data) <= MOST_BYTES
    return Image.open(io.BytesIO(data))


def near(one: Image.Image, other: Image.Image) -> float:
    pixels = [np.asarray(image.convert("RGB").resize((32, 24)), float) for image in (one, other)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


def test_pictures_of_images_through_sync_and_gc(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "images", 6)
    (tmp_path / "images" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    config = configure(
        tmp_path,
        corpus={"paths": ["images/*.png"]},
        encoder={"model": str(model)},
        verify={"max_rejected": 0.5},
        **kept(str(tmp_path)),
    )
    assert (config.checkpoint, config.thumbnails) == (f"{tmp_path}/checkpoint", True)
    report = backfill(config)
    assert (report.items.rejected, report.verify.found) == (1, 6)
    first = pictures(config)
    assert sorted(first) == [f"drawing-{number:03d}.png#0" for number in range(6)]
    for number in range(6):
        image = opened(first[f"drawing-{number:03d}.png#0"])
        assert (image.format, max(image.size) <= SIDE) == ("WEBP", True)
        others = [near(image, drawing(other)) for other in range(6)]
        assert int(np.argmin(others)) == number
    # The page shows them where the original is gone; without them it would decode it.
    (tmp_path / "images" / "drawing-003.png").rename(tmp_path / "gone.png")
    site = Site(config)
    try:
        assert picture_of(site, "drawing-003.png#0") == first["drawing-003.png#0"]
        with pytest.raises(NoMediaError):
            picture_of(site, "none#0")
    finally:
        site.close()
    # A changed image gets another one; an unchanged corpus none; gc removes those of parts that nothing needs.
    (tmp_path / "gone.png").rename(tmp_path / "images" / "drawing-003.png")
    assert sync(config).chunks.embedded in (0, 1)
    (tmp_path / "images" / "drawing-001.png").write_bytes(encoded(drawing(77)))
    assert sync(config).chunks.embedded == 1
    assert near(opened(pictures(config)["drawing-001.png#0"]), drawing(77)) < 12
    files = {file.name for file in Path(config.checkpoint).rglob("thumbnails/*.parquet")}
    (tmp_path / "images" / "drawing-001.png").write_bytes(encoded(drawing(78)))
    sync(config)
    gc(config, keep=0, yes=True)
    parts = {file.name for file in Path(config.checkpoint).rglob("parts/*.parquet")}
    left = {file.name for file in Path(config.checkpoint).rglob("thumbnails/*.parquet")}
    assert left == parts
    assert files - left
    assert verify(config).verify.damaged == 0
    assert sync(config.model_copy(update={"thumbnails": False})).chunks.embedded == 0
    # Another index: the same parts, and so the same pictures.
    again = reindex(config.model_copy(update={"collection": config.collection.model_copy(update={"metric": "IP"})}))
    assert again.chunks.embedded == 0
    # Merged parts have the pictures of the rows that live.
    root = Checkpoint(config.checkpoint, config.name, "")
    snapshot = root.read_snapshot(root.snapshots()[-1])
    checkpoint = Checkpoint(root.folder, root.name, snapshot.space_id)
    live = snapshot.live_parts
    [part] = MergeParts(checkpoint).process(Merge(tuple(range(len(live))), tuple(live)))
    wanted = {row["id"]: row["thumbnail"] for one in live for row in read_thumbnails(checkpoint, one).to_pylist()}
    table = pq.read_table(Path(config.checkpoint, config.name, snapshot.space_id, "thumbnails", part.name))
    assert {row["id"]: row["thumbnail"] for row in table.to_pylist()} == wanted
    assert len(wanted) == 6


def test_films_and_recordings_have_a_frame_and_a_waveform(tmp_path: Path, model: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(film((1, 2), 2.0))
    config = configure(
        tmp_path,
        corpus={"paths": ["films/*"], "format": "video"},
        encoder={"model": str(model), "frames": 2},
        chunk={"seconds": 2},
        **kept(str(tmp_path)),
    )
    backfill(config)
    found = pictures(config)
    first, second = (opened(found[f"a.mp4#{number}"]) for number in range(2))
    assert near(first, drawing(1, (160, 120))) < near(first, drawing(2, (160, 120)))
    assert near(second, drawing(2, (160, 120))) < near(second, drawing(1, (160, 120)))
    sounds = tmp_path / "sounds"
    (sounds / "corpus").mkdir(parents=True)
    samples = np.concatenate([np.zeros(16_000, np.float32), tune(1, 1.0)])
    (sounds / "corpus" / "a.wav").write_bytes(encoded_tune(samples))
    config = configure(
        sounds,
        corpus={"paths": ["corpus/*.wav"]},
        encoder={"model": str(save_whisper(tmp_path / "whisper"))},
        **kept(str(sounds)),
    )
    backfill(config)
    wave = np.asarray(opened(pictures(config)["a.wav#0"]).convert("L"), float)
    assert wave.shape == (small.WAVE_HEIGHT, SIDE)
    inked = (wave < 170).sum(axis=0)
    assert inked[:70].max() <= 4 < inked[90:].max()  # silence, then the tune


def test_a_picture_is_bounded_and_what_is_damaged_has_none(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8)
    (tmp_path / "noise.png").write_bytes(encoded(Image.fromarray(noise)))
    image = opened(thumbnail(Modality.IMAGE, str(tmp_path / "noise.png"), 0, 0))
    assert image.size == (SIDE, SIDE)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert thumbnail(Modality.IMAGE, str(tmp_path / "bad.png"), 0, 0) is None


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (
            {"folder": "c", "thumbnails": True},
            "thumbnails are of images, recordings and films, and the corpus is texts",
        ),
        ({"folder": "c", "small": True}, "checkpoint has 'folder', 'small'; write the name of a folder"),
        ({"thumbnails": True}, "write the name of a folder"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, checkpoint: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configure(tmp_path, corpus={"paths": ["a/*.jsonl"]}, checkpoint=checkpoint)
