"""Films, and films with texts, by models of the transformers library: whole runs, against the library itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import configure
from encoder_checks import Floats, Saved, check_batches, made_once, scaled
from films import film, shown_at, write_films
from media_models import TOKENS, save_film_model

from pipelines.backfill import backfill
from pipelines.index import Index
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs

for module in ("av", "transformers"):
    pytest.importorskip(module, reason="the extra video is not installed")

KINDS = ("videomae", "timesformer", "vivit", "xclip")
MIDDLES = [0.25, 0.75, 1.25, 1.75]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return made_once(tmp_path_factory, save_film_model)


def library(folder: Path, kind: str, data: bytes) -> Floats:
    """The vector of a film of two seconds by transformers itself, from all frames of it together."""
    import torch
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(shown_at(data, MIDDLES), return_tensors="pt").pixel_values
    assert pixels.shape[:2] == (1, 4)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        if kind == "xclip":
            return scaled(model.get_video_features(pixel_values=pixels).pooler_output)[0]
        hidden = model(pixel_values=pixels).last_hidden_state
        return scaled(hidden.mean(dim=1) if kind == "videomae" else hidden[:, 0])[0]


def library_text(folder: Path, text: str) -> Floats:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)([text], truncation=True, max_length=TOKENS, return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        return scaled(AutoModel.from_pretrained(folder).eval().get_text_features(**inputs).pooler_output)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_gives_the_library_s_vectors(tmp_path: Path, saved: Saved, kind: str) -> None:
    paths = write_films(tmp_path / "films", 4)
    (tmp_path / "films" / "page.mp4").write_text("<html>")
    config = configure(
        tmp_path,
        corpus={"paths": ["films/*"], "format": "video"},
        encoder={"model": str(saved(kind))},
        verify={"max_rejected": 0.5},
    )
    report = backfill(config)
    assert (report.verify.found, report.verify.recall_at_10) == (4, 1.0)
    assert [(reject.id, reject.error) for reject in report.rejected] == [("page.mp4", "NotFilm")]
    [part] = Path(config.checkpoint).rglob("parts/*.parquet")
    rows = {row["item_id"]: row for row in pq.read_table(part).to_pylist()}
    wanted = {path.name: library(saved(kind), kind, path.read_bytes()) for path in paths}
    assert all(np.dot(rows[name]["vector"], vector) >= 0.9999 for name, vector in wanted.items())
    with Index(str(tmp_path / "vecbeam.yaml")) as index:
        assert index.search(paths[2], k=1)[0]["item_id"] == "film-02.mp4"
        if kind == "xclip":
            text = library_text(saved(kind), "a red square")
            best = max(wanted, key=lambda name: float(wanted[name] @ text))
            assert index.search("a red square", k=1)[0]["item_id"] == best
        else:
            with pytest.raises(ConfigurationError, match="a text can't be searched for"):
                index.search("a text", k=1)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_do_not_change_vectors(saved: Saved, kind: str) -> None:
    encoder = resolve(EncoderConfig(model=str(saved(kind)))).load()
    films = [film((number,), 0.5 + number / 12) for number in range(7)]
    check_batches(encoder, media_inputs, films)


def test_a_model_has_its_own_number_of_frames(saved: Saved) -> None:
    for settings in ({"frames": 8}, {"frames_per_second": 2.0}):
        config = EncoderConfig(model=str(saved("videomae")), input="picture", **settings)
        with pytest.raises(ConfigurationError, match=rf"encoder\.{next(iter(settings))}: .* is for models of images"):
            resolve(config)
    facts = resolve(EncoderConfig(model=str(saved("videomae")))).space.facts
    assert (facts["film"]["frames"], facts["pooling"]) == (4, "mean of tokens")


def test_a_classifier_s_first_token_is_taken_where_its_settings_say_so(tmp_path: Path, saved: Saved) -> None:
    for file in saved("videomae").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "config.json").read_text()) | {"use_mean_pooling": False}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert resolve(EncoderConfig(model=str(tmp_path))).space.facts["pooling"] == "first token"
    del settings["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigurationError, match="does not say hidden_size"):
        resolve(EncoderConfig(model=str(tmp_path)))
