"""The sound track of films as a vector of its own, and segments that begin where scenes do."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from drawings import save_timm_model
from films import film, write_films
from recordings import encoded, save_whisper, tune
from run_results import rows_in_parts
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.plan import plan
from pipelines.sync import sync
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs
from transforms.encoders.media.content import RefusedError
from transforms.encoders.media.film import film_sound
from transforms.encoders.media.film.film import opened_film
from transforms.encoders.media.film.scenes import borders

for module in ("av", "timm", "soundfile", "soxr"):
    pytest.importorskip(module, reason="the extras video, image and audio are not installed")

RATE = 16_000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"))


def both(folder: Path, pictures: Path, sounds: Path, **changes: Any) -> Config:
    encoders = {
        "picture": {"model": str(pictures), "frames": 2},
        "sound": {"model": str(sounds), "input": "sound"},
    }
    corpus = {"paths": ["films/**"], "format": "video"}
    return configure(folder, **({"corpus": corpus, "encoders": encoders} | changes))


def track(path: Path, seconds: float) -> bytes:
    """The beginning of the sound track of a film as a wav file, by PyAV itself."""
    import av

    with av.open(str(path)) as container:
        pieces = [frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    return encoded(np.concatenate(pieces)[: round(seconds * rate)], rate, subtype="FLOAT")


def cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def test_picture_and_sound_are_vectors_of_the_same_segments(tmp_path: Path, pictures: Path, sounds: Path) -> None:
    for number in range(3):
        write_films(tmp_path / "films" / str(number), 1, sound=number)
    (tmp_path / "films" / "silent.mp4").write_bytes(film((7,)))
    config = both(tmp_path, pictures, sounds, chunk={"seconds": 2}, verify={"max_rejected": 0.5})
    assert plan(config).items.new == 4
    report = backfill(config)
    assert [(reject.id, reject.error) for reject in report.rejected] == [("silent.mp4", "NoSound")]
    rows = rows_in_parts(config)
    # What AAC adds at the end has a segment of its own.
    assert report.verify.found == len(rows)
    assert {*rows["0/film-00.mp4#0"]} > {"picture", "sound", "start", "end", "seconds_dropped"}
    heard = resolve(EncoderConfig(model=str(sounds))).load()
    tracks = [track(tmp_path / "films" / str(number) / "film-00.mp4", 2.0) for number in range(3)]
    wanted = heard.encode(media_inputs(tracks)).matrix
    for number in range(3):
        row = rows[f"{number}/film-00.mp4#0"]
        assert (row["start"], row["end"]) == (0.0, 2.0)
        far = np.abs(wanted - np.array(row["sound"])).max(axis=1)
        assert far[number] < 1e-4 < np.delete(far, number).min()
    assert sync(config).chunks.embedded == 0

    def first(*options: str) -> str:
        ran = CliRunner().invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), *options, "--json", "-k", "1"])
        assert ran.exit_code == 0, ran.output
        found: str = json.loads(ran.stdout)["hits"][0]["item_id"]
        return found

    recording = tmp_path / "recording.wav"
    recording.write_bytes(tracks[1])
    assert first("--audio", str(recording), "--vector", "sound") == "1/film-00.mp4"
    assert first("--video", str(tmp_path / "films" / "2" / "film-00.mp4"), "--vector", "sound") == "2/film-00.mp4"


@pytest.mark.parametrize("format", ["mp4", "matroska", "webm", "mov"])
def test_the_sound_of_a_segment_is_at_its_place(format: str) -> None:
    codec = "libvpx-vp9" if format == "webm" else "libx264"
    data = film((1, 2), 2.0, format=format, codec=codec, sound=5)
    whole = tune(5, 4.0, 48_000)
    for start, end in ((0.0, 1.0), (1.5, 2.5), (3.0, 4.0)):
        found = film_sound.decode(io.BytesIO(data), 48_000, start, end, measured=False)
        assert (found.seconds, len(found.samples)) == (end - start, 48_000)
        wanted = whole[round(start * 48_000) : round(end * 48_000)]
        # What an encoder delays is less than a tenth of a second.
        shifts = range(-2400, 2401, 8)
        best = max(cosine(np.roll(found.samples, shift)[4800:-4800], wanted[4800:-4800]) for shift in shifts)
        assert best > 0.9


def test_where_a_film_has_no_sound_it_is_silent() -> None:
    data = film((1,), 3.0, sound=5, seconds_of_sound=1.0)
    found = film_sound.decode(io.BytesIO(data), RATE, 0.0, 10.0, measured=True)
    assert (found.seconds, found.total) == (3.0, 3.0)
    assert np.abs(found.samples[: RATE // 2]).max() > 0.1
    assert not found.samples[round(1.2 * RATE) :].any()
    with pytest.raises(RefusedError, match="NoSound"):
        film_sound.decode(io.BytesIO(film((1,))), RATE, 0.0, 1.0, measured=False)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"model": "PICTURES", "input": "sound"}, "sound is for models of recordings, and .* embeds image"),
        ({"model": "SOUNDS"}, "embeds audio, and the corpus has items of the modality video.* set input: sound"),
        ({"model": "SOUNDS", "input": "sound", "frames": 2}, "frames: 2 is for models of images"),
    ],
)
def test_a_model_of_the_other_part_is_refused(
    tmp_path: Path, pictures: Path, sounds: Path, encoder: dict[str, Any], said: str
) -> None:
    write_films(tmp_path / "films", 1)
    named = {"PICTURES": str(pictures), "SOUNDS": str(sounds)}
    config = configure(
        tmp_path,
        corpus={"paths": ["films/*"], "format": "video"},
        encoder=encoder | {"model": named[encoder["model"]]},
    )
    with pytest.raises(ConfigurationError, match=said):
        plan(config)


def test_scenes_begin_where_the_picture_changes() -> None:
    data = film((11, 12, 13, 13), 2.0)
    with opened_film(io.BytesIO(data)) as opened:
        found = borders(opened)
    assert found == [0.0, pytest.approx(2.0, abs=0.2), pytest.approx(4.0, abs=0.2), 8.0]
    with opened_film(io.BytesIO(film((11,), 2.0))) as opened:
        assert borders(opened) == [0.0, 2.0]


def test_segments_of_scenes(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "three.mp4").write_bytes(film((11, 12, 13), 2.0))
    (tmp_path / "films" / "page.mp4").write_text("<html>")
    config = configure(
        tmp_path,
        corpus={"paths": ["films/*"], "format": "video"},
        encoder={"model": str(pictures)},
        chunk={"scenes": True, "seconds": 1.25},
        verify={"max_rejected": 0.6},
    )
    report = backfill(config)
    assert [(reject.id, reject.error) for reject in report.rejected] == [("page.mp4", "NotFilm")]
    rows = rows_in_parts(config)
    found = [(rows[f"three.mp4#{number}"]["start"], rows[f"three.mp4#{number}"]["end"]) for number in range(len(rows))]
    starts = [0.0, 1.25, 2.0, 3.25, 4.0, 5.25]
    assert [start for start, _ in found] == pytest.approx(starts, abs=0.2)
    assert [end for _, end in found] == pytest.approx([1.25, 2.0, 3.25, 4.0, 5.25, 6.0], abs=0.2)
    assert all(end == found[number + 1][0] for number, (_, end) in enumerate(found[:-1]))
    assert sync(config).chunks.embedded == 0


def test_scenes_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"chunk.scenes: .* modality audio"):
        configure(tmp_path, corpus={"paths": ["a/*"], "format": "audio"}, chunk={"scenes": True})
    with pytest.raises(ConfigurationError, match="max_tokens and scenes are both set"):
        configure(tmp_path, corpus={"paths": ["a/*"], "format": "video"}, chunk={"scenes": True, "max_tokens": 64})
