"""The options of a search on the page of `vecbeam serve` and in its JSON: by item, answers, typing errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from corpora import configure, text, write_jsonl
from served_site import EXTRA, Served, served

from pipelines.backfill import backfill
from pipelines.web.marked_text import answered, marked, split
from transforms import milvus

for module in EXTRA:
    pytest.importorskip(module, reason="the extra serve is not installed")
ABOUT = "Mandarins are number 3 of fruit."
SENTENCE = "Mandarins ripen in winter."


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Short texts, and one of two rows, of which the last one has the answer after what a card shows first."""
    folder = tmp_path_factory.mktemp("options")
    about = " ".join(f"Mandarins are number {n} of fruit." for n in range(40))
    records = [{"id": f"doc{n}", "text": text(n)} for n in range(12)]
    records.append({"id": "long", "text": f"{about} {SENTENCE}"})
    write_jsonl(folder / "corpus" / "a.jsonl", records)
    config = configure(folder, chunk={"max_tokens": 150, "overlap_tokens": 0})
    assert backfill(config).chunks.loaded == 14
    milvus.release(config.collection)
    with served(folder / "vecbeam.yaml") as site:
        yield site


def test_the_options_of_the_command_line_are_form_fields_and_keys(site: Served) -> None:
    about = {"query": ABOUT, "k": 5}
    assert [hit["item_id"] for hit in hits(site, about)].count("long") == 2
    items = [hit["item_id"] for hit in hits(site, about | {"by": "item"})]
    assert (len(items), len({*items}), items[0]) == (5, 5, "long")
    page = site.ask(f"/?{urlencode({'q': ABOUT, 'by': 'item'})}").text
    assert page.count("> long<") == 1
    assert 'name="by" type="checkbox" value="item" checked' in page

    all_ = {"query": SENTENCE, "k": 14, "answer": True}
    assert [hit["answer"]["text"] for hit in hits(site, all_)].count(SENTENCE) == 1
    page = site.ask(f"/?{urlencode({'q': SENTENCE, 'answer': 'true', 'k': 15})}").text
    [card] = [one for one in page.split('<li class="card"') if "; the marked sentence: cosine 1.0000; " in one]
    assert "> long<" in card
    assert "".join(re.findall(r'<mark class="answer">(.*?)</mark>', card)) == SENTENCE
    assert "<details open>" in card

    found = hits(site, {"query": "mandarrins", "k": 1, "fuzzy": True})
    assert (found[0]["item_id"], found[0]["score"] < 0.1) == ("long", True)  # fused by rank
    assert "> long<" in site.ask("/?q=mandarrins&fuzzy=true&k=1").text


def hits(site: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = site.ask("/search", json.dumps(body).encode())
    assert answer.status == 200, answer.text
    found: list[dict[str, Any]] = answer.json["hits"]
    return found


def test_pieces_of_a_text() -> None:
    assert marked("", "dog") == []
    assert marked("a dog", "") == [("a dog", False, False)]
    pieces = marked("Dog, dogs and DOG", "the dog")
    assert [piece.text for piece in pieces if piece.is_word] == ["Dog", "DOG"]
    assert "".join(piece.text for piece in pieces) == "Dog, dogs and DOG"
    for start, end in ((0, 17), (2, 9), (5, 5), (16, 40)):
        cut = answered(pieces, start, end)
        assert "".join(piece.text for piece in cut if piece.is_answer) == "Dog, dogs and DOG"[start:end]
        for characters in range(20):
            short, rest = split(cut, characters)
            assert "".join(piece.text for piece in [*short, *rest]) == "Dog, dogs and DOG"
            assert sum(len(piece.text) for piece in short) <= characters
