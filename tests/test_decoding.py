"""How images become pixels: those of each library exactly, and JPEG files that are scaled while they are decoded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from drawings import drawing, encoded, save_timm_model
from media_models import SIDE, save_backbone
from PIL import Image

from pipelines.backfill import backfill
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, SpaceMismatchError
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs
from transforms.encoders.media.image import decode
from transforms.encoders.media.image_transform import of_torchvision

pytest.importorskip("transformers", reason="the extra image is not installed")

SIZES = [(500, 375), (333, 500), (65, 64), (64, 200), (301, 299), (40, 30), (1024, 1024)]
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViTImageProcessorPil": {"size": {"height": 64, "width": 64}},
    "SiglipImageProcessorPil": {"size": {"height": 48, "width": 64}, "resample": 2},
    "CLIPImageProcessorPil": {"size": {"shortest_edge": 64}, "crop_size": {"height": 63, "width": 63}},
    "BitImageProcessorPil": {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 48}},
    "ConvNextImageProcessorPil": {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
}


def noise(size: tuple[int, int]) -> Image.Image:
    """A picture whose every pixel differs from its neighbours."""
    random = np.random.default_rng(size[0])
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.blend(drawing(size[1]).resize(size), Image.fromarray(pixels), 0.5)


def numbers_of(transform: Any, image: Image.Image) -> Any:
    import torch

    return transform.numbers(torch.from_numpy(transform(image).array.copy())[None])[0].numpy()


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_processor_of_transformers(name: str) -> None:
    import transformers

    from transforms.encoders.transformers.pixels import of_processor

    processor = getattr(transformers, name)(**PROCESSORS[name])
    transform = of_processor(processor)
    assert transform is not None
    for size in SIZES:
        wanted = processor(images=noise(size), return_tensors="np")["pixel_values"][0]
        found = numbers_of(transform, noise(size))
        step = 1 / 255 / min(transform.std)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 2.01 * step, size
        assert np.abs(found - wanted).mean() < 0.05 * step, size


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ViTImageProcessorPil", {"resample": 0}),
        ("ViTImageProcessorPil", {"do_resize": False}),
        ("ViTImageProcessorPil", {"rescale_factor": 1 / 127.5}),
        ("CLIPImageProcessorPil", {"crop_size": {"height": 80, "width": 80}}),
        ("CLIPImageProcessorPil", {"do_center_crop": False}),
        ("BeitImageProcessorPil", {}),
    ],
)
def test_other_processors_are_left_to_the_library(name: str, changes: dict[str, Any]) -> None:
    import transformers

    from transforms.encoders.transformers.pixels import of_processor

    assert of_processor(getattr(transformers, name)(**{**PROCESSORS.get(name, {}), **changes})) is None


def test_pixels_are_those_of_torchvision() -> None:
    pytest.importorskip("torchvision", reason="the extra image is not installed")
    from torchvision import transforms as library
    from torchvision.transforms.functional import InterpolationMode

    normalize = library.Normalize([0.48, 0.45, 0.4], [0.26, 0.25, 0.27])
    ends = [library.ToTensor(), normalize]
    bicubic = InterpolationMode.BICUBIC
    for steps in (
        [library.Resize(72, bicubic), library.CenterCrop(64)],
        [library.Resize(64), library.CenterCrop((49, 63))],
        [library.Resize((48, 64), bicubic)],
    ):
        compose = library.Compose([*steps, *ends])
        transform = of_torchvision(compose)
        assert transform is not None
        for size in SIZES:
            wanted, found = compose(noise(size)).numpy(), numbers_of(transform, noise(size))
            assert np.abs(found - wanted).max() <= 2.01 / 255 / 0.25, size
            assert np.abs(found - wanted).mean() < 0.05 / 255 / 0.25, size
    for others in (
        [library.Resize(72), library.Pad(2), library.CenterCrop(64)],
        [library.Resize(60), library.CenterCrop(64)],
        [library.Resize(72)],
        [library.Resize(72, max_size=100), library.CenterCrop(64)],
        [library.Resize((72, 72), InterpolationMode.NEAREST)],
    ):
        assert of_torchvision(library.Compose([*others, *ends])) is None


def test_a_large_jpeg_is_scaled_while_it_is_decoded_and_nothing_else() -> None:
    large, portrait = drawing(1).resize((1000, 800)), drawing(1).resize((800, 1000))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    for data, size in (
        (encoded(large, "JPEG"), (250, 200)),
        (encoded(large, "JPEG", progressive=True), (250, 200)),
        (encoded(large.convert("L"), "JPEG"), (250, 200)),
        (encoded(large.convert("CMYK"), "JPEG"), (250, 200)),
        (encoded(large, "JPEG", exif=exif), (200, 250)),
        (encoded(portrait, "JPEG"), (200, 250)),
        (encoded(large.resize((500, 255)), "JPEG"), (500, 255)),  # less than four times
        (encoded(large, "PNG"), (1000, 800)),
        (encoded(large, "WEBP"), (1000, 800)),
    ):
        found = decode(data, 64)
        assert (found.mode, found.size) == ("RGB", size)
        exact = decode(data)
        assert exact.size in ((1000, 800), (800, 1000), (500, 255))
        small = np.asarray(exact.resize(size, Image.Resampling.BOX), np.float32)
        assert np.abs(np.asarray(found, np.float32) - small).mean() < 4


def test_decoding_is_part_of_the_space_and_vectors_stay_near(tmp_path: Path) -> None:
    model = str(save_backbone(tmp_path / "vit", "vit"))
    exact, scaled = (resolve(EncoderConfig(model=model, decoding=how)) for how in ("exact", "scaled"))
    assert exact.space.facts["decoding"] == "exact"
    assert "JPEG files of 4 times" in scaled.space.facts["decoding"]
    assert exact.space.id != scaled.space.id
    small = [encoded(drawing(number), "JPEG") for number in range(3)]
    large = [encoded(drawing(number).resize((8 * SIDE, 6 * SIDE)), "JPEG") for number in range(3)]
    one, other = (model.load().encode(media_inputs([*small, *large])).matrix for model in (exact, scaled))
    cosines = (one * other).sum(axis=1)
    assert np.array_equal(one[:3], other[:3])
    assert 0.99 < cosines[3:].min() < 1 - 1e-7


def test_scaled_decoding_goes_through_a_run_by_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the extra image is not installed")
    model = save_timm_model(tmp_path / "timm")
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(encoded(drawing(number).resize((640, 600)), "JPEG"))
    corpus = {"paths": ["images/*"], "format": "image"}
    report = backfill(configure(tmp_path, corpus=corpus, encoder={"model": str(model), "decoding": "scaled"}))
    assert report.verify.found == 3
    exact = configure(tmp_path, corpus=corpus, encoder={"model": str(model)})
    with pytest.raises(SpaceMismatchError, match="decoding: exact here, scaled: JPEG files of 4 times"):
        search(exact, MediaQuery(encoded(drawing(0), "JPEG")), k=1)


def test_scaled_decoding_of_what_is_no_image_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "1", "text": "a cat"}])
    with pytest.raises(ConfigurationError, match=r"encoder\.decoding: scaled is for images, and the corpus is of"):
        configure(tmp_path, encoder={"model": "fake", "decoding": "scaled"})
    with pytest.raises(ConfigurationError, match=r"encoder\.decoding: scaled: fake does not decode images"):
        resolve(EncoderConfig(model="fake", decoding="scaled"))


def test_decoded_images_are_whole_and_closed() -> None:
    for format in ("JPEG", "PNG", "GIF", "TIFF", "BMP"):
        found = decode(encoded(drawing(3), format))
        copy = io.BytesIO()
        found.save(copy, "PNG")
        assert Image.open(copy).size == found.size == (96, 80)
