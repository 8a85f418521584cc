"""`vecbeam train` on pairs of texts and images: a small CLIP learns what drawings show, and is served; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from media_models import save_image_text
from open_clip_model import library, save_open_clip
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.steps.quality.trained_model import RECORD
from pipelines.train import train
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError, GateError
from transforms.encoders import resolve, text_inputs
from transforms.train.contrastive_models import load
from transforms.train.text_training import TrainingSettings

pytest.importorskip("accelerate")
COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230)}
SHAPES = ("square", "circle")
COUNT = 72


def shown(number: int) -> str:
    """A text of its own for each number, of which two words say what is drawn."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return f"{[*COLOURS][number % 3]} {SHAPES[number // 3 % 2]} {letters[number % 26]} {letters[number // 26]}"


def picture(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    colour, shape = shown(number).split()[:2]
    image = Image.new("RGB", (64, 64), tuple(random.integers(200, 256, 3).tolist()))
    x, y = random.integers(2, 22, 2).tolist()
    draw = ImageDraw.Draw(image)
    (draw.rectangle if shape == "square" else draw.ellipse)((x, y, x + 38, y + 38), fill=COLOURS[colour])
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    for number in range(COUNT):
        picture(number).save(folder / "images" / f"{number:02d}.png")
    records = [{"text": shown(n), "image": f"images/{n:02d}.png"} for n in range(COUNT)]
    write_jsonl(folder / "pairs.jsonl", records)
    save_image_text(folder / "clip", "clip")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Any]:
    words = ["train", str(folder / "pairs.jsonl"), "--model", str(folder / "clip"), "--out", str(folder / "mine")]
    words += ["--epochs", "12", "--batch", "12", "--learning-rate", "0.003", "--held-out", "0.3", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.stderr.split("\n")[:3] == ["measure", f"train  0 of {found['steps']:,}", "measure again"]
    return found


def test_a_model_of_images_and_texts_is_better_on_texts_that_it_never_saw(
    folder: Path, trained: dict[str, Any]
) -> None:
    assert trained["difference"]["low"] > 0
    assert trained["held_out_queries"] == len(trained["rows"]) == round(0.3 * COUNT)
    record = json.loads((folder / "mine" / RECORD).read_bytes())
    assert record["pairs"]["count"] == COUNT
    assert record["figures"]["ndcg_at_10_after"] == trained["ndcg_at_10_after"]
    assert record["base"]["weights_sha256"]
    assert "library_name: transformers" in (folder / "mine" / "README.md").read_text()


def test_the_model_is_published_and_finds_images_by_texts(
    folder: Path, trained: dict[str, Any], tmp_path: Path
) -> None:
    def right(model: str) -> int:
        index = {"uri": "./milvus.db", "index": {"type": "FLAT"}}
        paths = [str(folder / "images" / "*.png")]
        encoder = {"model": model, "engine": "torch", "precision": "float32"}
        place = tmp_path / Path(model).name
        backfill(configure(place, encoder=encoder, corpus={"paths": paths}, collection=index))
        wanted = [(one, shape) for one in COLOURS for shape in SHAPES]
        with Index(place / "vecbeam.yaml") as opened:
            found = opened.search([" ".join(one) for one in wanted], 5)
        hits = [[hit["item_id"] for hit in own] for own in found]
        return sum(
            tuple(shown(int(name.removesuffix(".png"))).split()[:2]) == want
            for want, own in zip(wanted, hits, strict=True)
            for name in own
        )

    for name in ("clip", "mine"):
        (tmp_path / name).mkdir()
    before, after = right(str(folder / "clip")), right(str(folder / "mine"))
    assert after >= before + 8, (before, after)


@pytest.mark.parametrize(
    ("name", "epochs", "more"), [("ClipLoss", 8, {}), ("SigLipLoss", 2, {"init_logit_bias": -10.0})]
)
def test_a_model_of_open_clip_is_trained_with_the_library_s_loss(
    name: str, epochs: int, more: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("open_clip")
    import torch

    base, mine = save_open_clip(tmp_path / "base", **more), tmp_path / "mine"
    texts, images = [shown(n) for n in range(8)], [picture(n) for n in range(8)]
    loaded = load(base)
    with torch.no_grad():
        loss = float(loaded.module(**loaded.batch(texts, images))["loss"])
    assert loss == pytest.approx(library_loss(base, name, texts, images), rel=1e-5)

    settings = TrainingSettings(epochs, 12, 0.002)
    found = train(
        folder / "pairs.jsonl", mine, model=str(base), held_out=0.3, settings=settings, even_if_not_better=True
    )
    assert found.figures["ndcg_at_10_after"]["value"] > found.figures["ndcg_at_10_before"]["value"]
    assert library_loss(mine, name, texts, images) < loss
    record = json.loads((mine / RECORD).read_bytes())
    assert record["settings"]["loss"] == f"open_clip.{name}"
    assert record["versions"]["open_clip_torch"]
    assert "library_name: open_clip" in (mine / "README.md").read_text()
    files = {one.name for one in mine.iterdir()}
    assert files == {"open_clip_config.json", "open_clip_model.safetensors", RECORD, "README.md"}
    [ours] = resolve(EncoderConfig(model=str(mine))).load().encode(text_inputs(texts[:1]), query=True).matrix
    theirs = library(mine, images[:1], texts[:1])[1][0]
    assert ours @ theirs == pytest.approx(1, abs=1e-4)


def library_loss(folder: Path, name: str, texts: list[str], images: list[Image.Image]) -> float:
    """The library's own loss of a batch, of its own model."""
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", output_dict=True)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    with torch.no_grad():
        made = model.eval()(torch.stack([transform(image) for image in images]), tokens)
        return float(getattr(open_clip.loss, name)()(**made))


def test_a_model_that_is_not_better_is_not_written(folder: Path, tmp_path: Path) -> None:
    siglip = str(save_image_text(tmp_path / "siglip", "siglip"))
    settings = TrainingSettings(1, 24, 1e-9)
    with pytest.raises(GateError, match="not better on 14 held-out queries"):
        train(folder / "pairs.jsonl", tmp_path / "m", model=siglip, settings=settings)
    assert [one.name for one in tmp_path.iterdir()] == ["siglip"]


def test_wrong_pairs_and_models_are_refused(folder: Path, tmp_path: Path) -> None:
    model = str(folder / "clip")
    first = {"text": "red square", "image": str(folder / "images" / "00.png")}
    cases: dict[str, list[Any]] = {
        "line 2: can't read the image .*nothing.png": [first, {"text": "x", "image": "nothing.png"}],
        "line 2 has no text": [first, {"image": "x.png"}],
        "1 different images": [first, first],
        "line 2 is not a JSON object": [first, [1]],
    }
    for message, lines in cases.items():
        with pytest.raises(ConfigurationError, match=message):
            train(write_jsonl(tmp_path / "p.jsonl", lines), tmp_path / "m", model=model)
    with pytest.raises(ConfigurationError, match="is not a model of images and texts"):
        train(folder / "pairs.jsonl", tmp_path / "m", model="fake")
    with pytest.raises(ConfigurationError, match="--hard-negatives is for pairs of texts"):
        train(folder / "pairs.jsonl", tmp_path / "m", model=model, settings=TrainingSettings(hard_negatives=1))
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(b"no image" + bytes([number]))
    broken = [{"text": f"text {n}", "image": f"{n}.png"} for n in range(60)]
    with pytest.raises(EncoderError):
        train(write_jsonl(tmp_path / "p.jsonl", broken), tmp_path / "m", model=model)
