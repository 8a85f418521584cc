"""A text in pieces: which are words of the query, and which are the sentence that answers it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_WORD = re.compile(r"\w{3,}")


class Piece(NamedTuple):
    """A piece of a text."""

    text: str
    is_word: bool = False
    is_answer: bool = False


def marked(text: str, words: str) -> list[Piece]:
    """A text in pieces, of which some are words of a query.

    >>> [piece.text for piece in marked("An island, many islands.", "islands of Japan") if piece.is_word]
    ['islands']
    """
    wanted = {word.casefold() for word in _WORD.findall(words)}
    if not wanted or not text:
        return [Piece(text)] if text else []
    pieces: list[Piece] = []
    end = 0
    for found in _WORD.finditer(text):
        if found[0].casefold() in wanted:
            if found.start() > end:
                pieces.append(Piece(text[end : found.start()]))
            pieces.append(Piece(found[0], is_word=True))
            end = found.end()
    return [*pieces, Piece(text[end:])] if end < len(text) else pieces


def answered(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """The pieces, of which those from one character to another are the answer.

    >>> [piece.text for piece in answered([Piece("It rains. It snows.")], 10, 19) if piece.is_answer]
    ['It snows.']
    """
    found: list[Piece] = []
    at = 0
    for piece in pieces:
        cuts = sorted({0, len(piece.text), *(cut - at for cut in (start, end) if 0 < cut - at < len(piece.text))})
        for first, last in pairwise(cuts):
            is_answer = start <= at + first and at + last <= end
            found.append(Piece(piece.text[first:last], piece.is_word, is_answer))
        at += len(piece.text)
    return found


def split(pieces: Sequence[Piece], characters: int) -> tuple[list[Piece], list[Piece]]:
    """The pieces of the first characters, and those of the rest."""
    short: list[Piece] = []
    left = characters
    for at, piece in enumerate(pieces):
        if len(piece.text) > left:
            cut = piece.text[:left].rfind(" ") + 1 or left
            parts = [piece._replace(text=text) for text in (piece.text[:cut], piece.text[cut:])]
            return [*short, *parts[: 1 if cut else 0]], [*parts[1:], *pieces[at + 1 :]]
        short.append(piece)
        left -= len(piece.text)
    return short, []
