"""Encoders of different inputs of one record: configurations that don't fit, and what counts as an input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import configure, write_jsonl
from shop import FAKE, FIELDS, shop

from pipelines.plan import plan
from schemas.config.loader import parse_config
from schemas.errors import ConfigurationError
from schemas.item_inputs import ItemContent
from schemas.modality import Modality
from transforms.encoders.models import Models

pytest.importorskip("open_clip", reason="the extra image is not installed")

TWO = {"title": {**FAKE, "input": ["title"]}, "photo": {"model": "efficientnet-lite0", "input": "media"}}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": (
        {"encoders": {**TWO, "title": {**FAKE, "input": ["titel"]}}},
        r"encoders\.title\.input: 'titel' is not a field of corpus\.content \(title, description\); add it there, or "
        "name one of these, or media",
    ),
    "field twice": (
        {"encoders": {**TWO, "title": {**FAKE, "input": ["title", "title"]}}},
        r"encoders\.title\.input: names 'title' more than once; name each field once",
    ),
    "no field": ({"encoders": {**TWO, "title": {**FAKE, "input": []}}}, r"encoders\.title\.input: \[\] does not fit"),
    "a number": ({"encoders": {**TWO, "title": {**FAKE, "input": 3}}}, r"encoders\.title\.input: 3 does not fit"),
    "no media": (
        {"corpus.media": None},
        r"encoders\.photo\.input: media is what corpus\.media names, and that is not set; set corpus\.media, or name",
    ),
    "no content": (
        {"corpus.content": None},
        r"encoders\.title\.input: \[title\] names fields of corpus\.content, which is not set; set corpus\.content",
    ),
    "an encoder without": (
        {"encoders": {**TWO, "photo": {"model": "efficientnet-lite0"}}},
        r"encoders\.photo\.input is missing: items have texts \(corpus\.content\) and media; set it to fields, such as",
    ),
    "none with": (
        {"encoders": {"title": FAKE, "photo": {"model": "efficientnet-lite0"}}},
        r"corpus\.content and corpus\.media are both set, and no encoder says which of them it embeds",
    ),
    "one encoder": ({"encoders": None, "encoder": FAKE}, r"corpus\.content and corpus\.media are both set"),
    "media unused": (
        {"encoders": {"title": TWO["title"]}},
        r"corpus\.media: no encoder embeds 'photo'; set input: media of an encoder, or remove corpus\.media",
    ),
    "texts unused": (
        {"encoders": {"photo": TWO["photo"]}},
        r"corpus\.content: no encoder embeds title, description; set the input of an encoder",
    ),
    "chunks": (
        {"chunk": {"max_tokens": 64}},
        r"chunk: encoders embed parts of an item \(title: title, photo: photo\), and so each item is one row; set "
        "chunk: false",
    ),
    "chunks by default": ({"chunk": None}, "set chunk: false"),
    "chunks of a part": (
        {"chunk": None, "corpus.media": None, "encoders": {"title": TWO["title"]}},
        r"set chunk: false, or corpus\.content: \[title\]",
    ),
    "the same": (
        {"encoders": {**TWO, "other": TWO["title"]}},
        "encoders: title and other are the same: the same model with the same input; remove one",
    ),
    "media as text": (
        {"corpus.content": ["title", "photo"]},
        r"corpus\.content: 'photo' is corpus\.media, which is not a text; remove it",
    ),
    "files": (
        {"corpus.paths": ["a/*.txt"], "corpus.media": None, "encoders": {"title": TWO["title"]}},
        r"encoders\.title\.input: it is for records, and each file of 'a/\*\.txt' is an item; remove it, or that path",
    ),
    "format of files": (
        {"corpus.format": "text", "corpus.media": None, "encoders": {"title": TWO["title"]}},
        r"encoders\.title\.input: it is for records, and in the format text a file is an item; remove it",
    ),
    "bm25 of a field": (
        {"encoders": {**TWO, "words": {"model": "bm25", "input": ["title"]}}},
        r"encoders\.words\.input: Milvus computes bm25 of the whole text of a row, which is corpus\.content",
    ),
    "sound of images": (
        {"encoders": {**TWO, "photo": {**TWO["photo"], "input": "sound"}}},
        r"encoders\.photo\.input: sound is a part of films, and the media are image; set it to media",
    ),
    "frames of a title": (
        {"encoders": {**TWO, "title": {**TWO["title"], "frames": 3}}},
        r"encoders\.title\.frames: it is for films, and its input title is of the modality text; remove it",
    ),
    "decoding of a title": (
        {"encoders": {**TWO, "title": {**TWO["title"], "decoding": "scaled"}}},
        r"encoders\.title\.decoding: scaled is for images, and its input title is of the modality text; remove it",
    ),
    "null": (
        {"encoders": {**TWO, "photo": {**TWO["photo"], "on_missing": None}}},
        r"encoders\.photo.*on_missing: vecbeam stores no null vectors: Milvus Lite 3\.2 stores zeros "
        r".*Milvus 2\.3 to 2\.6 have no nullable vectors.*remove on_missing: an item without the input is a reject",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_configuration_is_refused(case: str) -> None:
    changes, message = WRONG[case]
    values: dict[str, Any] = {
        "name": "shop",
        "corpus": {"paths": ["nothing/is/read.jsonl"], "content": list(FIELDS), "media": "photo"},
        "chunk": False,
        "encoders": TWO,
        "checkpoint": "c",
        "collection": {"uri": "./m.db"},
    }
    for path, value in changes.items():
        section, _, key = path.rpartition(".")
        place = values[section] if section else values
        if value is None:
            del place[key]
        else:
            place[key] = value
    with pytest.raises(ConfigurationError, match=message):
        parse_config(values)


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        (
            {**TWO, "photo": {**FAKE, "input": "media"}},
            r"encoders\.photo\.model: fake embeds text, and its input, photo, is of the modality image",
        ),
        (
            {**TWO, "title": {"model": "efficientnet-lite0", "input": ["title"]}},
            r"encoders\.title\.model: efficientnet-lite0 embeds image, and its input, title, is of the modality text",
        ),
        (
            {**TWO, "title": {"model": "hashing", "input": ["title"]}},
            r"encoders\.title\.model: hashing is fitted on whole items, and its input is title",
        ),
        (
            {**TWO, "title": {"model": "minilmx", "input": ["title"]}},
            r"encoders\.title\.model: 'minilmx' is not a catalogue name",
        ),
    ],
)
def test_a_model_that_can_not_embed_its_input_is_refused(
    tmp_path: Path, encoders: dict[str, Any], message: str
) -> None:
    write_jsonl(tmp_path / "products.jsonl", [{"id": "a", "title": "b", "description": "c", "photo": "d.png"}])
    with pytest.raises(ConfigurationError, match=message):
        plan(shop(tmp_path, tmp_path, encoders=encoders))


def test_files_without_fields_in_a_folder_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": "a", "title": "b", "body": "c"}])
    (tmp_path / "in" / "b.md").write_text("a text")
    encoders = {"title": {**FAKE, "input": ["title"]}, "body": {**FAKE, "input": ["body"]}}
    config = configure(
        tmp_path, corpus={"paths": ["in/*"], "content": ["title", "body"]}, chunk=False, encoders=encoders
    )
    with pytest.raises(ConfigurationError, match=r"b\.md' is of the format markdown, in which a file is an item"):
        plan(config)


def test_whole_inputs_are_no_other_than_without_the_key() -> None:
    values: dict[str, Any] = {"name": "a", "checkpoint": "c", "collection": {"uri": "./m.db"}}
    texts = {**values, "corpus": {"paths": ["a.jsonl"], "content": ["title", "text"]}}
    named = parse_config({**texts, "encoder": {**FAKE, "input": ["title", "text"]}})
    bare = parse_config({**texts, "encoder": FAKE})
    assert (named.inputs, named.chunk) == ({}, bare.chunk)
    assert Models.of(named).space == Models.of(bare).space
    media = {**values, "corpus": {"paths": ["a.jsonl"], "media": "photo"}}
    assert parse_config({**media, "encoder": {"model": "conse", "input": "media"}}).corpus.modality is Modality.IMAGE


def test_the_content_of_an_item_covers_all_inputs() -> None:
    content = ItemContent({"title": "Überschuh", "body": ""}).with_media("v1")
    assert ItemContent.from_text(content.as_text()) == content
    assert content.text(["title", "body"]) == "Überschuh"
    others = (content.with_media("v2"), ItemContent({"title": "Überschuh", "body": "x"}, "v1"))
    assert content.as_text() not in {one.as_text() for one in others}
