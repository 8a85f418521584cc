"""Captions of films as text, without times, numbers and tags: SubRip (.srt), WebVTT (.vtt), and those within films."""

from __future__ import annotations

import html
import re
from typing import BinaryIO, cast

from transforms.read.open_file import OpenFile
from transforms.read.rejected_item import RejectedItemError
from transforms.read.stream import RawStream
from transforms.support.film_container import container_of
from transforms.support.subtitles import SubtitlesError, subtitles, texts

_TIMES = re.compile(r"^\s*(?:\d+:)?\d+:\d\d[.,]\d{1,3}\s+-->\s+(?:\d+:)?\d+:\d\d[.,]\d{1,3}")
_TAG = re.compile(r"</?(?:[a-zA-Z][^<>]*|\d\d:[\d:.]+)>|\{\\[^{}]*\}")
_SETTINGS = ("WEBVTT", "NOTE", "STYLE", "REGION")
"""First words of WebVTT blocks that are not captions."""


def captions_text(text: str) -> str:
    r"""The captions of a file, a line each. A line that the next one repeats, as it does when text rolls, counts once.

    Raises:
        RejectedItemError: `NotCaptions`.

    >>> captions_text("1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i> &amp;\ngoodbye\n")
    'Hello & goodbye'
    """
    is_webvtt = text.startswith("WEBVTT")
    found: list[str] = []
    last: list[str] = []
    has_times = False
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip("\n").split("\n")
        place = next((number for number, line in enumerate(lines[:2]) if _TIMES.match(line)), None)
        if place is None and (not has_times or (is_webvtt and lines[0].startswith(_SETTINGS))):
            continue
        # A caption may have an empty line in it: what follows has no times.
        has_times = True
        shown = [_plain(line) for line in lines[0 if place is None else place + 1 :]]
        shown = [line for line in shown if line]
        new = [line for line in shown if line not in last]
        last = shown
        if new:
            found.append(" ".join(new))
    if not has_times:
        raise RejectedItemError("NotCaptions", "The file has no line with times, such as 00:00:01,000 --> 00:00:02,500")
    return "\n".join(found)


def is_film(opened: OpenFile) -> bool:
    """Whether a file of captions is a film, which has them in it."""
    if opened.file.format != "captions" or opened.file.compression:
        return False
    head = opened.raw.read(64)
    opened.raw.rewind()
    return container_of(head) is not None


def text_of_film(raw: RawStream) -> str:
    """The subtitles within a film, a line each; it is read to its end.

    Raises:
        RejectedItemError: `NotCaptions` where there are no texts, or what `subtitles` raises.
    """
    try:
        [found] = subtitles(cast(BinaryIO, raw))
    except SubtitlesError as error:
        if raw.failure is not None:  # of the storage, which PyAV takes for damage
            raise raw.failure from error
        raise RejectedItemError(error.error, error.reason) from error
    if not found.shown:
        raise RejectedItemError("NotCaptions", f"The film has no texts: {found.left_out or 'it has no subtitles'}")
    return "\n".join(texts(found.shown))


def _plain(line: str) -> str:
    return html.unescape(_TAG.sub("", line)).strip()
