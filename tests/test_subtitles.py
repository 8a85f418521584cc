"""Subtitles within films: as a column of their segments, and as texts of a corpus of captions."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure
from drawings import save_timm_model
from films import film
from run_results import rows_in_parts
from subtitled import SAID, subtitled

from pipelines.backfill import backfill
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.sync import sync
from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, SpaceMismatchError
from transforms.encoders import resolve, text_inputs
from transforms.encoders.derived.segment_subtitles import PAUSE
from transforms.encoders.models import Models
from transforms.support.subtitles import LONGEST_SECONDS, SubtitlesError, subtitles

for module in ("av", "timm"):
    pytest.importorskip(module, reason="the extras video and image are not installed")

KINDS = [("matroska", "subrip"), ("matroska", "ass"), ("webm", "webvtt"), ("mp4", "mov_text"), ("mov", "mov_text")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_timm_model(tmp_path_factory.mktemp("timm"))


@pytest.mark.parametrize(("format", "codec"), KINDS)
def test_texts_and_times_of_each_kind(format: str, codec: str) -> None:
    [found] = subtitles(io.BytesIO(subtitled(format=format, codec=codec, sound=1)))
    assert found.left_out == ""
    assert [one.text for one in found.shown] == ["Hello there\nyou", "Ships & harbours", "the end"]
    times = [(one.start, one.end) for one in found.shown]
    assert times == [pytest.approx(one[:2], abs=0.03) for one in SAID]
    assert found.between(0.0, 1.2) == "Hello there you\nShips & harbours"
    assert (found.between(1.5, 3.1), found.between(3.0, 4.0)) == ("", "the end")


def test_wrong_times_and_a_broken_stream() -> None:
    wrong = ((0.5, 0.5, "no length"), (1.0, 1.4, "one"), (9.0, 90.0, "after the film"), (95.0, 95.0, "never ends"))
    [found] = subtitles(io.BytesIO(subtitled(wrong)))
    assert [(one.text, one.end) for one in found.shown] == [
        ("no length", pytest.approx(1.0, abs=0.03)),
        ("one", pytest.approx(1.4, abs=0.03)),
        ("after the film", pytest.approx(90.0, abs=0.1)),
        ("never ends", pytest.approx(95.0 + LONGEST_SECONDS, abs=0.1)),
    ]
    [damaged] = subtitles(io.BytesIO(subtitled(format="mp4", codec="mov_text", damaged=1)))
    assert [one.text for one in damaged.shown] == ["Hello there\nyou", "the end"]
    assert "1 of its subtitles are damaged" in damaged.left_out
    with pytest.raises(SubtitlesError, match="NotFilm"):
        subtitles(io.BytesIO(b"<html>"))
    rolled = ((0.1, 0.5, "first"), (0.5, 0.9, "first\\Nsecond"), (0.9, 1.4, "{\\p1}m 0 0 l 9 9{\\p0}second\\Nthird"))
    [found] = subtitles(io.BytesIO(subtitled(rolled, codec="ass")))
    assert found.between(0, 4) == "first\nsecond\nthird"


def test_segments_have_their_subtitles_as_a_column(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "said.mkv").write_bytes(subtitled())
    (folder / "mute.mp4").write_bytes(film((3,), 2.0))
    (folder / "pictures.mkv").write_bytes(subtitled(((0.1, 0.9, "drawn"),)).replace(b"S_TEXT/UTF8", b"S_HDMV/PGS\0"))
    corpus = {
        "paths": ["films/*"],
        "format": "video",
        "metadata": {"said": {"type": "string", "from": "__subtitles__"}, "year": "int"},
    }
    config = configure(tmp_path, corpus=corpus, encoder={"model": str(model)}, chunk={"seconds": 2})
    with caplog.at_level(logging.WARNING, "vecbeam"):
        report = backfill(config)
    assert (report.items.read, report.items.rejected, report.verify.found) == (3, 0, 5)
    assert "pictures.mkv: its subtitles are pictures or of an unknown kind (" in caplog.text
    assert {key: row["said"] for key, row in rows_in_parts(config).items()} == {
        "said.mkv#0": "Hello there you\nShips & harbours",
        "said.mkv#1": "the end",
        "mute.mp4#0": None,
        "pictures.mkv#0": None,
        "pictures.mkv#1": None,
    }
    (tmp_path / "query.mp4").write_bytes(film((7,)))
    query = MediaQuery(str(tmp_path / "query.mp4"))
    [hit] = search(config, query, k=5, filter_expression='said like "%harbours%"')
    assert (hit["id"], hit["said"]) == ("said.mkv#0", "Hello there you\nShips & harbours")
    assert sync(config).chunks.embedded == 0
    # More than the column holds is one reject, with the place and the key.
    limited = {**corpus, "metadata": {"said": {"type": "string", "from": "__subtitles__", "max_bytes": 20}}}
    (tmp_path / "limited").mkdir()
    report = backfill(
        configure(
            tmp_path / "limited",
            corpus={**limited, "paths": [f"{folder}/*"]},
            encoder={"model": str(model)},
            chunk={"seconds": 2},
            verify={"max_rejected": 0.5},
        )
    )
    [reject] = report.rejected
    assert (reject.id, reject.error) == ("said.mkv", "TextTooLong")
    assert "from 0 s to 2 s have 32 bytes, more than max_bytes of their column, 20" in reject.reason


GERMAN = ("ger", "", ((0.2, 0.9, "Hallo"), (3.2, 3.9, "das Ende")))
FOREIGN_WORDS = ("ger", "forced", ((1.0, 1.5, "Bahnhof"),))


@pytest.mark.parametrize(("format", "codec"), [("matroska", "subrip"), ("mp4", "mov_text")])
def test_tracks_by_their_language(format: str, codec: str) -> None:
    data = subtitled(format=format, codec=codec, language="eng", others=[FOREIGN_WORDS, GERMAN])
    english, german, none, shown = subtitles(io.BytesIO(data), ("eng", "deu", "fra", ""))
    assert english == shown
    assert [one.text for one in english.shown] == ["Hello there\nyou", "Ships & harbours", "the end"]
    assert [one.text for one in german.shown] == ["Hallo", "das Ende"]
    assert (none.shown, none.left_out) == ([], "its subtitles are in deu, eng, not in fra")


def test_segments_are_found_by_what_is_said(tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "said.mkv").write_bytes(subtitled(language="eng", others=[GERMAN]))
    (folder / "english.mp4").write_bytes(subtitled(format="mp4", codec="mov_text", language="eng"))
    (folder / "mute.mp4").write_bytes(film((3,), 2.0))
    corpus = {
        "paths": ["films/*"],
        "format": "video",
        "metadata": {
            "said": {"type": "string", "from": "__subtitles__", "language": "en"},
            "german": {"type": "string", "from": "__subtitles__", "language": "de"},
        },
    }
    encoders: dict[str, Any] = {
        "picture": {"model": str(model)},
        "words": {"model": "fake", "dimensions": 32, "input": "said"},
    }
    config = configure(tmp_path, corpus=corpus, encoders=encoders, chunk={"seconds": 2})
    with caplog.at_level(logging.WARNING, "vecbeam"):
        report = backfill(config)
    assert (report.items.rejected, report.verify.found) == (0, 5)
    assert "english.mp4: its subtitles are in eng, not in deu, and left out" in caplog.text
    said = {key: (row["said"], row["german"]) for key, row in rows_in_parts(config).items()}
    talk = "Hello there you\nShips & harbours"
    assert said == {
        "said.mkv#0": (talk, "Hallo"),
        "said.mkv#1": ("the end", "das Ende"),
        "english.mp4#0": (talk, None),
        "english.mp4#1": ("the end", None),
        "mute.mp4#0": (None, None),
    }
    # The vectors are those of the model alone; a segment without words has that of the placeholder.
    alone = resolve(EncoderConfig(model="fake", dimensions=32)).load()
    wanted = alone.encode(text_inputs([of or PAUSE for of, _ in said.values()])).matrix
    made = np.array([row["words"] for row in rows_in_parts(config).values()])
    assert (made * wanted).sum(axis=1).min() >= 0.9999
    # A text searches what is said, a film the pictures.
    assert {hit["id"] for hit in search(config, "ships & harbours", k=2)} == {"said.mkv#0", "english.mp4#0"}
    hits = search(config, "nothing at all", k=5, filter_expression='said like "%"')
    assert {hit["id"] for hit in hits} == {*said} - {"mute.mp4#0"}
    [hit] = search(config, MediaQuery(str(folder / "mute.mp4")), k=1)
    assert hit["id"] == "mute.mp4#0"
    assert sync(config).chunks.embedded == 0
    # Another language of a column is made without the encoders; of an encoder's column it is another space.
    corpus["metadata"]["german"]["language"] = "eng"
    changed = configure(tmp_path, corpus=corpus, encoders=encoders, chunk={"seconds": 2})
    assert sync(changed).chunks.embedded == 0
    assert {key: row["german"] for key, row in rows_in_parts(changed).items() if row["german"] == row["said"]}
    corpus["metadata"]["said"]["language"] = "deu"
    other = configure(tmp_path, corpus=corpus, encoders=encoders, chunk={"seconds": 2})
    with pytest.raises(SpaceMismatchError, match="language"):
        sync(other)


def test_subtitles_over_the_limit_of_a_model_are_counted(tmp_path: Path) -> None:
    words = ["harbour"] * 30
    (tmp_path / "long.mkv").write_bytes(subtitled(((0.0, 4.0, " ".join(words)),)))
    corpus = {"paths": ["*.mkv"], "format": "video", "metadata": {"said": {"type": "string", "from": "__subtitles__"}}}
    encoder = {"model": "all-MiniLM-L6-v2", "engine": "torch", "input": ["said"], "max_tokens": 17}
    config = configure(tmp_path, corpus=corpus, encoder=encoder, verify={"max_dropped_tokens": 1.0})
    report = backfill(config)
    [row] = rows_in_parts(config).values()
    assert (row["start"], row["end"]) == (0.0, pytest.approx(4.0, abs=0.1))
    alone = resolve(EncoderConfig(model="all-MiniLM-L6-v2", engine="torch")).load()
    assert np.dot(alone.encode(text_inputs([" ".join(words[:15])])).matrix[0], row["vector"]) >= 0.999
    # Of 32 tokens 17 are embedded.
    assert row["seconds_dropped"] == pytest.approx(15 / 32 * row["end"], abs=0.01)
    assert report.sound.dropped == pytest.approx(row["seconds_dropped"], abs=0.01)


def test_films_are_a_corpus_of_captions(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mkv").write_bytes(subtitled())
    (folder / "b.mp4").write_bytes(subtitled(format="mp4", codec="mov_text"))
    (folder / "c.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i>\n")
    (folder / "mute.mp4").write_bytes(film((3,)))
    cut = subtitled(format="mp4", codec="mov_text")
    (folder / "cut.mp4").write_bytes(cut[: len(cut) // 2])
    config = configure(
        tmp_path,
        corpus={"paths": ["films/*"], "format": "captions"},
        encoder={"model": "fake", "dimensions": 16},
        verify={"max_rejected": 0.6},
    )
    report = backfill(config)
    assert {key: row["text"] for key, row in rows_in_parts(config).items()} == {
        "a.mkv#0": "Hello there you\nShips & harbours\nthe end",
        "b.mp4#0": "Hello there you\nShips & harbours\nthe end",
        "c.srt#0": "Hello",
    }
    assert {one.id: one.error for one in report.rejected} == {"mute.mp4": "NotCaptions", "cut.mp4": "DamagedFilm"}


SUBTITLES = {"type": "string", "from": "__subtitles__"}
OF_FILMS: dict[str, Any] = {"format": "video", "metadata": {"said": SUBTITLES}}


@pytest.mark.parametrize(
    ("corpus", "encoders", "said"),
    [
        ({"metadata": {"said": {**SUBTITLES, "type": "int"}}, "format": "video"}, {}, "set type: string"),
        ({"metadata": {"said": SUBTITLES}, "format": "image"}, {}, "are of films"),
        ({"metadata": {"said": {**SUBTITLES, "language": "German"}}}, {}, "'German' is not a code of ISO 639"),
        ({"metadata": {"said": {"type": "string", "language": "de"}}}, {}, "set from: __subtitles__"),
        (OF_FILMS, {"words": {"model": "fake", "input": ["said", "title"]}}, "name that one alone"),
        (OF_FILMS, {"words": {"model": "fake", "input": "said"}, "b": {"model": "x", "input": "media"}}, "remove enc"),
        (OF_FILMS, {"words": {"model": "bm25", "input": "said"}}, "rows of films do not have"),
        (
            {"paths": ["a/*.mkv", "a/*.txt"], "metadata": {"said": SUBTITLES}},
            {"words": {"model": "fake", "input": "said"}},
            "where all items are films",
        ),
    ],
)
def test_subtitles_are_refused_elsewhere(
    tmp_path: Path, corpus: dict[str, Any], encoders: dict[str, Any], said: str
) -> None:
    named = {"encoders": encoders} if encoders else {}
    with pytest.raises(ConfigurationError, match=said):
        configure(tmp_path, corpus={"paths": ["a/*"], **corpus}, **named)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"model": "efficientnet-lite0"}, "does not embed texts"),
        ({"model": "tfidf"}, "or is fitted on the corpus"),
        ({"model": "all-MiniLM-L6-v2", "precision": "int8"}, "set precision"),
        ({"model": "all-MiniLM-L6-v2", "frames": 4}, "remove encoder.frames"),
    ],
)
def test_models_that_embed_no_subtitles(tmp_path: Path, encoder: dict[str, Any], said: str) -> None:
    config = configure(tmp_path, corpus={"paths": ["a/*"], **OF_FILMS}, encoder={**encoder, "input": "said"})
    with pytest.raises(ConfigurationError, match=said):
        Models.of(config)
