"""A hit as a card of the page: how near it is and why, what it shows, and its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.config import Config

SHORT_CHARACTERS = 420
_WORD = re.compile(r"\w{3,}")
_NOT_COLUMNS = {"score", "importance", "id", "item_id", "chunk", "text", "uri", "start", "end", "modality"}


@dataclass(frozen=True)
class Card:
    """A hit.

    Attributes:
        percent: its importance, as whole percent; "" where the collection does not know it.
        why: what score and percent say, in a sentence.
        kind: "text", "image", "audio" or "video": what is shown.
        pieces: its text in pieces, and which of them are words of the query.
        rest: what follows them, where the text is long.
        place: the span of a recording, film or text.
        columns: the metadata, by name.
    """

    id: str
    item_id: str
    score: float
    percent: str
    why: str
    kind: str
    pieces: Sequence[tuple[str, bool]]
    rest: Sequence[tuple[str, bool]]
    uri: str
    start: float
    end: float
    place: str
    columns: dict[str, Any]


def card(hit: dict[str, Any], metric: str, words: str, config: Config) -> Card:
    """The card of a hit.

    Args:
        words: the text of the query, whose words are marked.
    """
    text, kind = str(hit.get("text") or ""), _kind(hit, config)
    importance = hit.get("importance")
    start, end = float(hit.get("start") or 0), float(hit.get("end") or 0)
    if config.inputs:  # an item is one row, and these are characters of its whole text
        start = end = 0.0
    pieces = marked(text, words)
    short, rest = _split(pieces, SHORT_CHARACTERS)
    return Card(
        str(hit["id"]),
        str(hit["item_id"]),
        float(hit["score"]),
        "" if importance is None else f"{importance:.0f} %",
        _why(float(hit["score"]), metric, importance),
        kind,
        short,
        rest,
        str(hit.get("uri") or ""),
        start,
        end,
        _place(kind, start, end),
        {name: value for name, value in hit.items() if name not in _NOT_COLUMNS and value is not None},
    )


def marked(text: str, words: str) -> list[tuple[str, bool]]:
    """A text in pieces, with True for those that are words of a query.

    >>> marked("An island, many islands.", "islands of Japan")
    [('An island, many ', False), ('islands', True), ('.', False)]
    """
    wanted = {word.casefold() for word in _WORD.findall(words)}
    if not wanted or not text:
        return [(text, False)] if text else []
    pieces: list[tuple[str, bool]] = []
    end = 0
    for found in _WORD.finditer(text):
        if found[0].casefold() in wanted:
            if found.start() > end:
                pieces.append((text[end : found.start()], False))
            pieces.append((found[0], True))
            end = found.end()
    return [*pieces, (text[end:], False)] if end < len(text) else pieces


def _split(pieces: list[tuple[str, bool]], characters: int) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The pieces of the first characters, and those of the rest."""
    short: list[tuple[str, bool]] = []
    left = characters
    for at, (text, is_word) in enumerate(pieces):
        if len(text) > left:
            cut = text[:left].rfind(" ") + 1 or left
            return [*short, (text[:cut], is_word)], [(text[cut:], is_word), *pieces[at + 1 :]]
        short.append((text, is_word))
        left -= len(text)
    return short, []


def _kind(hit: dict[str, Any], config: Config) -> str:
    if modality := hit.get("modality"):
        return str(modality)
    if config.inputs and hit.get("uri"):
        return next(str(one.modality) for one in config.inputs.values() if not one.is_text)
    return "text" if "text" in hit and not hit.get("uri") else str(config.corpus.modality)


def _why(score: float, metric: str, importance: float | None) -> str:
    said = {
        "COSINE": f"cosine {score:.4f}",
        "IP": f"inner product {score:.4f}",
        "L2": f"squared distance {score:.4f}, smaller is nearer",
        "RRF": f"{score:.4f}: the sum of 1 / (60 + rank) over the vectors that were searched",
        "BM25": f"BM25 {score:.4f}: words in common, rare ones more",
        "MaxSim": f"MaxSim {score:.4f}: the sum over the query's tokens of their nearest token",
    }.get(metric, f"{metric} {score:.4f}")
    if importance is None:
        return said
    return f"{said}; {importance:.1f} % of pairs of rows (a sample) are less similar than the query and this row"


def _place(kind: str, start: float, end: float) -> str:
    if kind in ("audio", "video") and end > start:
        return f"{start:.1f} s to {end:.1f} s"
    return ""
