"""A hit as a card of the page: how near it is and why, what it shows, and its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.steps.search.hits.answers import NAME as ANSWER
from pipelines.web.marked_text import Piece, answered, marked, split
from schemas.config import Config

SHORT_CHARACTERS = 420
_NOT_COLUMNS = {"score", "importance", "id", "item_id", "chunk", "text", "uri", "start", "end", "modality", ANSWER}


@dataclass(frozen=True)
class Card:
    """A hit.

    Attributes:
        percent: its importance, as whole percent; "" where the collection does not know it.
        why: what score and percent say, in a sentence.
        kind: "text", "image", "audio" or "video": what is shown.
        pieces: its text in pieces.
        rest: what follows them, where the text is long.
        opened: whether the rest has a part of the answer, and is shown.
        place: the span of a recording, film or text.
        columns: the metadata, by name.
        has_picture: whether the checkpoint may have a small picture of a recording or film.
    """

    id: str
    item_id: str
    score: float
    percent: str
    why: str
    kind: str
    pieces: Sequence[Piece]
    rest: Sequence[Piece]
    opened: bool
    uri: str
    start: float
    end: float
    place: str
    columns: dict[str, Any]
    has_picture: bool = False


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
    if answer := hit.get(ANSWER):
        pieces = answered(pieces, answer["start"], answer["end"])
    short, rest = split(pieces, SHORT_CHARACTERS)
    return Card(
        str(hit["id"]),
        str(hit["item_id"]),
        float(hit["score"]),
        "" if importance is None else f"{importance:.0f} %",
        _why(float(hit["score"]), metric, importance, answer),
        kind,
        short,
        rest,
        any(piece.is_answer for piece in rest),
        str(hit.get("uri") or ""),
        start,
        end,
        _place(kind, start, end),
        {name: value for name, value in hit.items() if name not in _NOT_COLUMNS and value is not None},
        config.thumbnails,
    )


def _kind(hit: dict[str, Any], config: Config) -> str:
    if modality := hit.get("modality"):
        return str(modality)
    if config.inputs and hit.get("uri"):
        return next(str(one.modality) for one in config.inputs.values() if not one.is_text)
    return "text" if "text" in hit and not hit.get("uri") else str(config.corpus.modality)


def _why(score: float, metric: str, importance: float | None, answer: dict[str, Any] | None) -> str:
    said = {
        "COSINE": f"cosine {score:.4f}",
        "IP": f"inner product {score:.4f}",
        "L2": f"squared distance {score:.4f}, smaller is nearer",
        "RRF": f"{score:.4f}: the sum of 1 / (60 + rank) over the searches that were fused",
        "BM25": f"BM25 {score:.4f}: words in common, rare ones more",
        "MaxSim": f"MaxSim {score:.4f}: the sum over the query's tokens of their nearest token",
    }.get(metric, f"{metric} {score:.4f}")
    if answer:
        said += f"; the marked sentence: cosine {answer['score']:.4f}"
    if importance is None:
        return said
    return f"{said}; {importance:.1f} % of pairs of rows (a sample) are less similar than the query and this row"


def _place(kind: str, start: float, end: float) -> str:
    if kind in ("audio", "video") and end > start:
        return f"{start:.1f} s to {end:.1f} s"
    return ""
