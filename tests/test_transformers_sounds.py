"""Recordings, and recordings with texts, by models of the transformers library: whole runs, against the library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from encoder_checks import Floats, Saved, check_batches, made_once, scaled
from media_models import TOKENS, save_sound_text, save_waveform
from recordings import damaged, encoded, tune, write_tunes
from run_results import rows_in_parts

from pipelines.backfill import backfill
from pipelines.search import search
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders import resolve, text_inputs
from transforms.encoders.base import media_inputs

for module in ("soundfile", "soxr", "av", "transformers"):
    pytest.importorskip(module, reason="the extra audio is not installed")

KINDS: dict[str, Callable[[Path], Path]] = {
    "wav2vec2": save_waveform,
    "wav2vec2-layer": lambda folder: save_waveform(folder, norm="layer"),
    "hubert": lambda folder: save_waveform(folder, "hubert"),
    "clap": save_sound_text,
    "clap-fused": lambda folder: save_sound_text(folder, fuses=True),
}
TEXTS = ["a dog barks", "rain", "a bird sings over two cats", "text " * 40]
RATE = 16_000


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return made_once(tmp_path_factory, lambda folder, kind: KINDS[kind](folder))


def sound_config(folder: Path, model: Path, **changes: Any) -> Config:
    values = {"corpus": {"paths": ["sounds/*"], "format": "audio"}, "encoder": {"model": str(model)}}
    return configure(folder, **(values | changes))


def library(folder: Path, kind: str, sound: Floats) -> Floats:
    """The vector of a recording by transformers itself."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    extractor, model = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = extractor(sound, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        if not kind.startswith("clap"):
            return scaled(model(inputs.input_values).last_hidden_state[0].mean(dim=0))
        is_longer = torch.zeros(1, 1, dtype=torch.bool)
        return scaled(model.get_audio_features(inputs.input_features, is_longer=is_longer).pooler_output[0])


def library_texts(folder: Path, texts: list[str]) -> Floats:
    """Vectors of texts by transformers itself, one at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    made = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer([text], truncation=True, max_length=TOKENS, return_tensors="pt")
            inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
            made.append(model.get_text_features(**inputs).pooler_output)
    return scaled(torch.cat(made))


@pytest.mark.parametrize("kind", ["wav2vec2", "clap"])
def test_a_run_gives_the_library_s_vectors(tmp_path: Path, saved: Saved, kind: str) -> None:
    write_tunes(tmp_path / "sounds", 5)
    long = tune(50, 3.5)
    (tmp_path / "sounds" / "long.wav").write_bytes(encoded(long, subtype="FLOAT"))
    (tmp_path / "sounds" / "page.mp3").write_bytes(damaged()["page.mp3"][0])
    chunk = {"seconds": 1.5, "overlap_seconds": 0.5}
    config = sound_config(tmp_path, saved(kind), chunk=chunk, verify={"max_rejected": 0.5})
    report = backfill(config)
    assert (report.items.read, report.verify.found) == (7, 8)
    assert [reject.id for reject in report.rejected] == ["page.mp3"]
    rows = rows_in_parts(config)
    windows = [(rows[f"long.wav#{number}"]["start"], rows[f"long.wav#{number}"]["end"]) for number in range(3)]
    assert windows == [(0.0, 1.5), (1.0, 2.5), (2.0, 3.5)]
    for number, (start, end) in enumerate(windows):
        wanted = library(saved(kind), kind, long[round(start * RATE) : round(end * RATE)])
        assert np.dot(rows[f"long.wav#{number}"]["vector"], wanted) >= 0.9999
    if kind == "clap":
        [text] = library_texts(saved(kind), TEXTS[:1])
        best = max(rows, key=lambda name: float(np.dot(rows[name]["vector"], text)))
        assert search(config, TEXTS[0], k=1)[0]["id"] == best
    else:
        with pytest.raises(ConfigurationError, match="a text can't be searched for"):
            search(config, TEXTS[0], k=1)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_do_not_change_vectors(saved: Saved, kind: str) -> None:
    encoder = resolve(EncoderConfig(model=str(saved(kind)))).load()
    sounds = [tune(number, 0.1 + 0.07 * (number % 9)) for number in range(18)]
    cases: list[tuple[Any, list[Any]]] = [(media_inputs, [encoded(sound, subtype="FLOAT") for sound in sounds])]
    if kind.startswith("clap"):
        cases.append((text_inputs, [*TEXTS, *(f"text {n} " * (n % 5 + 1) for n in range(70))]))
    for make, values in cases:
        whole = check_batches(encoder, make, values)
        if make is media_inputs:
            wanted = np.array([library(saved(kind), kind, sound) for sound in sounds[:4]])
            assert (whole[:4] * wanted).sum(axis=1).min() >= 0.9999


def test_a_corpus_of_texts_is_found_by_a_recording(tmp_path: Path, saved: Saved) -> None:
    write_jsonl(tmp_path / "corpus" / "a.jsonl", [{"id": str(at), "text": text} for at, text in enumerate(TEXTS[:3])])
    chunk = {"max_tokens": TOKENS, "overlap_tokens": 0}
    config = configure(tmp_path, chunk=chunk, encoder={"model": str(saved("clap"))})
    assert backfill(config).verify.found == 3
    rows, wanted = rows_in_parts(config), library_texts(saved("clap"), TEXTS[:3])
    assert (np.array([rows[f"{at}#0"]["vector"] for at in range(3)]) * wanted).sum(axis=1).min() >= 0.9999
    default = configure(tmp_path, chunk={"max_tokens": 256}, encoder={"model": str(saved("clap"))})
    with pytest.raises(ConfigurationError, match=r"chunk\.max_tokens: 256 is more than the 16 tokens"):
        backfill(default)
    alone = configure(tmp_path, encoder={"model": str(saved("wav2vec2"))})
    with pytest.raises(ConfigurationError, match="embeds audio, and the corpus has items of the modality text"):
        backfill(alone)


def test_windows_are_within_what_the_model_takes(tmp_path: Path, saved: Saved) -> None:
    write_tunes(tmp_path / "sounds", 1)
    with pytest.raises(ConfigurationError, match=r"chunk\.seconds: 3 is more than the 2 s"):
        backfill(sound_config(tmp_path, saved("clap"), chunk={"seconds": 3}))
    with pytest.raises(ConfigurationError, match=r"chunk\.seconds: 31 is more than the 30 s"):
        backfill(sound_config(tmp_path, saved("wav2vec2"), chunk={"seconds": 31}))
    model = resolve(EncoderConfig(model=str(saved("wav2vec2"))))
    shortest = 10 + 7 * 8 + 3 * 64
    long_enough, too_short = (encoded(tune(1)[:size]) for size in (shortest, shortest - 1))
    found = model.load().encode(media_inputs([long_enough, too_short]))
    assert [(row, error) for row, (error, _) in found.refused.items()] == [(1, "SoundTooShort")]


@pytest.mark.parametrize(
    ("kind", "name", "settings", "said"),
    [
        ("wav2vec2", "preprocessor_config.json", None, "holds no preprocessor_config.json"),
        ("wav2vec2", "model.safetensors", None, "holds no safetensors weights"),
        (
            "wav2vec2",
            "preprocessor_config.json",
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            "has a Whisper",
        ),
        ("wav2vec2", "config.json", {"conv_kernel": None}, "without hidden_size, conv_kernel and conv_stride"),
        ("clap", "preprocessor_config.json", {"feature_size": 40}, "makes 40 mel bands, and the model takes 32"),
        ("clap", "tokenizer.json", None, "holds no tokenizer.json"),
    ],
)
def test_a_folder_with_a_fault_is_refused(
    tmp_path: Path, saved: Saved, kind: str, name: str, settings: dict[str, Any] | None, said: str
) -> None:
    folder = shutil.copytree(saved(kind), tmp_path / kind)
    if settings is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **settings}))
    with pytest.raises(ConfigurationError, match=said):
        resolve(EncoderConfig(model=str(folder)))
