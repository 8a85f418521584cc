"""Images, and images with texts, by models of the transformers library: whole runs, against the library itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from drawings import damaged, drawing, encoded, write_drawings
from encoder_checks import Floats, Saved, check_batches, made_once, scaled
from media_models import TOKENS, save_backbone, save_image_text
from PIL import Image
from run_results import rows_in_parts

from pipelines.backfill import backfill
from pipelines.index import Index
from pipelines.search import search
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders import resolve, text_inputs
from transforms.encoders.base import media_inputs

pytest.importorskip("transformers", reason="the extra image is not installed")

PERCEIVERS = ("perceiver-Fourier", "perceiver-Learned", "perceiver-ConvProcessing")
BACKBONES = ("vit", "dinov2", "dinov3_vit", "dinov3_convnext", "resnet", PERCEIVERS[0])
POOLED = ("resnet", "dinov3_vit", "dinov3_convnext")
TOWERS = ("clip", "siglip", "siglip2")
TEXTS = ["a cat", "a red square over a blue circle", "two words", "x " * 40]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    def save(folder: Path, kind: str) -> Path:
        return save_image_text(folder, kind) if kind in TOWERS else save_backbone(folder, kind)

    return made_once(tmp_path_factory, save)


def pixels(folder: Path, images: list[Image.Image]) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder, backend="pil")(images=images, return_tensors="pt").pixel_values


def library(folder: Path, kind: str, images: list[Image.Image]) -> Floats:
    """Vectors of images by transformers itself."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    if kind in PERCEIVERS:
        return scaled(before_the_classifier(folder, kind, images))
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        if kind in TOWERS:
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
            return scaled(model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output)
        found = model(pixels(folder, images))
        return scaled(found.pooler_output.flatten(1) if kind in POOLED else found.last_hidden_state[:, 0])


def before_the_classifier(folder: Path, kind: str, images: list[Image.Image]) -> Any:
    """What the last layer of a Perceiver reads."""
    import torch
    import transformers

    name = f"PerceiverForImageClassification{kind.removeprefix('perceiver-')}"
    model = getattr(transformers, name).from_pretrained(folder).eval()
    seen: list[Any] = []
    layer = model.perceiver.decoder.decoder.final_layer
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        logits = model(pixel_values=pixels(folder, images)).logits
        assert torch.allclose(layer(seen[0])[:, 0], logits)
    return seen[0][:, 0]


def library_texts(folder: Path, kind: str, texts: list[str]) -> Floats:
    """Vectors of texts by transformers itself, one at a time for CLIP, which needs no padding then."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    made = []
    with torch.inference_mode():
        for text in texts:
            padding = "max_length" if kind.startswith("siglip") else "do_not_pad"
            tokens = tokenizer([text], padding=padding, truncation=True, max_length=TOKENS, return_tensors="pt")
            inputs = {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}
            made.append(model.get_text_features(**inputs).pooler_output)
        return scaled(torch.cat(made))


@pytest.mark.parametrize("kind", [*BACKBONES, *TOWERS])
def test_a_run_gives_the_library_s_vectors(tmp_path: Path, saved: Saved, kind: str) -> None:
    paths = write_drawings(tmp_path / "images", 12)
    (tmp_path / "images" / "cut.jpg").write_bytes(damaged()["cut.jpg"][0])
    config = configure(
        tmp_path,
        corpus={"paths": ["images/*"], "format": "image"},
        encoder={"model": str(saved(kind))},
        verify={"max_rejected": 0.5},
    )
    report = backfill(config)
    assert (report.verify.found, report.verify.recall_at_10) == (12, 1.0)
    assert [reject.id for reject in report.rejected] == ["cut.jpg"]
    rows = rows_in_parts(config, "item_id")
    vectors = np.array([rows[path.name]["vector"] for path in paths])
    wanted = library(saved(kind), kind, [Image.open(path) for path in paths])
    assert (vectors * wanted).sum(axis=1).min() >= 0.9999
    with Index(str(tmp_path / "vecbeam.yaml")) as index:
        assert index.search([paths[5]], k=1)[0][0]["item_id"] == "drawing-005.png"
    if kind in TOWERS:
        texts = library_texts(saved(kind), kind, TEXTS)
        best = np.argsort(-(wanted @ texts[1]), kind="stable")[0]
        assert search(config, TEXTS[1], k=1)[0]["item_id"] == paths[best].name
    else:
        with pytest.raises(ConfigurationError, match="a text can't be searched for"):
            search(config, "a text", k=1)


@pytest.mark.parametrize("kind", TOWERS)
def test_a_corpus_of_texts_is_found_by_an_image(tmp_path: Path, saved: Saved, kind: str) -> None:
    texts = ["a cat", "a red square over a blue circle.", "two words"]
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(at), "text": text} for at, text in enumerate(texts)])
    config = configure(
        tmp_path,
        corpus={"paths": ["corpus/*"], "id": "id", "content": ["text"]},
        chunk={"max_tokens": TOKENS, "overlap_tokens": 0},
        encoder={"model": str(saved(kind))},
    )
    report = backfill(config)
    assert (report.verify.found, report.tokens.dropped) == (3, 0)
    rows = rows_in_parts(config, "item_id")
    wanted = library_texts(saved(kind), kind, texts)
    vectors = np.array([rows[str(at)]["vector"] for at in range(3)])
    assert (vectors * wanted).sum(axis=1).min() >= 0.9999
    image = library(saved(kind), kind, [drawing(7)])[0]
    with Index(str(tmp_path / "vecbeam.yaml")) as index:
        [[hit]] = index.search([drawing(7)], k=1)
    assert hit["item_id"] == str(int(np.argmax(wanted @ image)))
    default = configure(tmp_path, chunk={"max_tokens": 256}, encoder={"model": str(saved(kind))})
    with pytest.raises(ConfigurationError, match=r"chunk\.max_tokens: 256 is more than the 16 tokens"):
        backfill(default)


@pytest.mark.parametrize("kind", [*BACKBONES, *TOWERS])
def test_batches_do_not_change_vectors(saved: Saved, kind: str) -> None:
    encoder = resolve(EncoderConfig(model=str(saved(kind)))).load()
    files = [encoded(drawing(number, (60 + number * 3, 90)), "JPEG") for number in range(17)]
    cases: list[tuple[Any, list[Any]]] = [(media_inputs, files)]
    if kind in TOWERS:
        cases.append((text_inputs, [*TEXTS, *(f"text {n} " * (n % 5 + 1) for n in range(70))]))
    for make, values in cases:
        check_batches(encoder, make, values)


@pytest.mark.parametrize("kind", PERCEIVERS[1:])
def test_each_perceiver_of_images_gives_what_its_last_layer_reads(saved: Saved, kind: str) -> None:
    images = [drawing(number, (60 + number * 9, 90)) for number in range(4)]
    found = resolve(EncoderConfig(model=str(saved(kind)))).load().encode(media_inputs(map(encoded, images))).matrix
    assert (found * library(saved(kind), kind, images)).sum(axis=1).min() >= 0.9999
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("kind", TOWERS)
def test_texts_have_the_library_s_vectors_and_their_cut_tokens_are_counted(saved: Saved, kind: str) -> None:
    found = resolve(EncoderConfig(model=str(saved(kind)), dimensions=16)).load().encode(text_inputs(TEXTS), query=True)
    wanted = library_texts(saved(kind), kind, TEXTS)[:, :16]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (found.matrix * wanted).sum(axis=1).min() >= 0.9999
    counts = [3, 14, 3, 80] if kind == "siglip2" else [4, 9, 4, 42]
    assert found.amount.tolist() == [min(count, TOKENS) for count in counts]
    assert found.dropped.tolist() == [max(0, count - TOKENS) for count in counts]


def test_texts_of_siglip_1_are_cut_into_pieces_by_its_own_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="the extra image is not installed")
    folder = save_image_text(tmp_path, "siglip", pieces=True)
    texts = ["A cat, and a DOG!", "two words", "a blue circle " * 9]
    model = resolve(EncoderConfig(model=str(folder)))
    found = model.load().encode(text_inputs(texts))
    assert (found.matrix * library_texts(folder, "siglip", texts)).sum(axis=1).min() >= 0.9999
    assert found.dropped[:2].tolist() == [0, 0]
    assert found.dropped[2] > 0
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": "1", "text": "a cat"}])
    config = configure(tmp_path, chunk={"max_tokens": TOKENS, "overlap_tokens": 0}, encoder={"model": str(folder)})
    with pytest.raises(ConfigurationError, match=r"holds no tokenizer\.json, and the corpus is of texts"):
        backfill(config)


def test_the_space_is_what_the_files_say(saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved("clip"), tmp_path / "clip")
    space = resolve(EncoderConfig(model=str(folder))).space
    assert (space.facts["dimensions"], space.facts["max_tokens"]) == (24, TOKENS)
    change(folder / "config.json", transformers_version="9.9", torch_dtype="float16")
    assert resolve(EncoderConfig(model=str(folder))).space.id == space.id
    for name, changes in (
        ("config.json", {"projection_dim": 23}),
        ("preprocessor_config.json", {"image_mean": [0.1, 0.2, 0.3]}),
        ("tokenizer_config.json", {"padding_side": "left"}),
    ):
        whole = (folder / name).read_bytes()
        change(folder / name, **changes)
        assert resolve(EncoderConfig(model=str(folder))).space.id != space.id, name
        (folder / name).write_bytes(whole)


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize(
    ("kind", "fault", "said"),
    [
        ("vit", {"remove": "preprocessor_config.json"}, "holds no preprocessor_config.json"),
        ("vit", {"remove": "model.safetensors"}, "holds no safetensors weights"),
        ("vit", {"config.json": {"auto_map": {"AutoModel": "code.Model"}}}, "code that comes with it"),
        ("vit", {"preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "a.B"}}}, "code that comes with it"),
        ("vit", {"config.json": {"quantization_config": {"load_in_4bit": True}}}, "has quantization_config"),
        ("vit", {"config.json": {"hidden_size": None}}, "does not say hidden_size"),
        ("vit", {"config.json": {"model_type": "sam"}}, "has model_type 'sam'.*does not embed"),
        (PERCEIVERS[0], {"config.json": {"architectures": ["PerceiverForMaskedLM"]}}, "does not classify images"),
        ("clip", {"remove": "tokenizer.json"}, "holds no tokenizer.json, and the model embeds texts"),
    ],
)
def test_a_folder_with_a_fault_is_refused(tmp_path: Path, saved: Saved, kind: str, fault: Any, said: str) -> None:
    folder = shutil.copytree(saved(kind), tmp_path / kind)
    for name, value in fault.items():
        if name == "remove":
            (folder / value).rename(tmp_path / "pytorch_model.bin")
        else:
            change(folder / name, **value)
    with pytest.raises(ConfigurationError, match=said):
        resolve(EncoderConfig(model=str(folder), family="transformers"))


def test_pickled_weights_alone_are_refused(tmp_path: Path, saved: Saved) -> None:
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="holds no safetensors weights"):
        resolve(EncoderConfig(model=str(folder)))


def test_weights_of_another_model_are_not_made_up(tmp_path: Path, saved: Saved) -> None:
    folder = shutil.copytree(saved("vit"), tmp_path / "vit")
    change(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(EncoderError, match="weights of 16 parameters are missing, such as layers"):
        resolve(EncoderConfig(model=str(folder))).load()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(EncoderError, match="can't load the model in"):
        resolve(EncoderConfig(model=str(folder))).load()


def test_images_of_several_sizes_are_refused_at_load(tmp_path: Path, saved: Saved) -> None:
    folder = shutil.copytree(saved("dinov2"), tmp_path / "dinov2")
    change(folder / "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(EncoderError, match="makes images of several sizes"):
        resolve(EncoderConfig(model=str(folder))).load()
