"""Subtitles within films: the texts of some of its streams (mov_text, SubRip, WebVTT, ASS), each with its seconds.

It is the stream that players show by default, else the first one; where the language is configured, of its streams, and
one for foreign words alone comes last. Streams of pictures (DVD, Blu-ray) have no text: vecbeam recognizes no letters.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

from schemas.errors import EncoderError
from schemas.languages import language_code
from transforms.support.film_container import container_of, nothing_else
from transforms.support.item_error import ItemError, said_by_library

TEXTS = frozenset({"mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text"})
MOST_CHARACTERS = 16 << 20
"""Of all subtitles of a film."""
LONGEST_SECONDS = 30.0
"""So long a subtitle without an end is shown at most; the next one ends it."""
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}.*?(?:\{[^{}]*\\p0[^{}]*\}|$)", re.DOTALL)
_TAG = re.compile(r"\{[^{}]*\}|</?[a-zA-Z][^<>]*>")


class SubtitlesError(ItemError):
    """The film has no texts that can be read."""


class Subtitle(NamedTuple):
    """A text, and from which second to which it is shown."""

    start: float
    end: float
    text: str


class Subtitles(NamedTuple):
    """The subtitles of a film, of one of its streams.

    Attributes:
        shown: by their beginnings; none if the film has no such stream of texts.
        left_out: what was not read, as a clause; "" for nothing.
    """

    shown: list[Subtitle]
    left_out: str = ""

    def between(self, start: float, end: float) -> str:
        """The texts that are shown in some seconds, a line each."""
        return "\n".join(texts(one for one in self.shown if one.start < end and one.end > start))


def texts(shown: Iterable[Subtitle]) -> Iterator[str]:
    """The texts in their order; a line that the subtitle before had, as it does when text rolls, counts once."""
    last: list[str] = []
    for one in shown:
        lines = one.text.split("\n")
        if new := [line for line in lines if line not in last]:
            yield " ".join(new)
        last = lines


def subtitles(stream: BinaryIO, languages: Sequence[str] = ("",)) -> list[Subtitles]:
    """The subtitles of a film; it is read to its end once, and nothing of picture and sound is decoded.

    Args:
        languages: whose subtitles are read, as codes of three letters; "" for what players show by default.

    Returns:
        For each language.

    Raises:
        SubtitlesError: `NotFilm`, `DamagedFilm`, or `TextTooLong` over `MOST_CHARACTERS`.
        EncoderError: if PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise EncoderError(f"PyAV is needed for subtitles of films: {error}", "pip install 'vecbeam[video]'") from error
    stream.seek(0)
    format = container_of(stream.read(64))
    stream.seek(0)
    if format is None:
        raise SubtitlesError("NotFilm", "The file is not of MPEG-4, QuickTime, WebM, Matroska or AVI")
    try:
        with av.open(stream, format=format, io_open=nothing_else) as container:
            return _of(container, languages)
    except (SubtitlesError, MemoryError):
        raise
    except Exception as error:  # PyAV raises errors of many kinds for damaged files
        raise SubtitlesError("DamagedFilm", f"The subtitles can't be read: {said_by_library(error)}") from error


def _of(container: Any, languages: Sequence[str]) -> list[Subtitles]:
    streams = list(container.streams.subtitles)
    named = [(one, _codec(one)) for one in streams]
    readable = [one for one, codec in named if codec in TEXTS]
    if not readable:
        kinds = ", ".join(sorted({codec for _, codec in named}))
        left_out = f"its subtitles are pictures or of an unknown kind ({kinds})" if kinds else ""
        return [Subtitles([], left_out)] * len(languages)
    chosen = [_chosen(readable, language) for language in languages]
    decoded = _decoded(container, {one.index: one for one in chosen if one is not None})
    return [
        Subtitles([], f"its subtitles are in {', '.join(sorted({*map(_language, readable)}))}, not in {language}")
        if stream is None
        else decoded[stream.index]
        for language, stream in zip(languages, chosen, strict=True)
    ]


def _chosen(streams: Sequence[Any], language: str) -> Any | None:
    """The stream of a language, or of any for ""; None if there is none."""
    from av.stream import Disposition

    own = [one for one in streams if not language or _language(one) == language]
    first = sorted(own, key=lambda one: not one.disposition & Disposition.default)
    if language:  # the default one of a language is often that of its foreign words
        first = sorted(own, key=lambda one: (bool(one.disposition & Disposition.forced), first.index(one)))
    return next(iter(first), None)


def _language(stream: Any) -> str:
    return language_code(stream.language or "") or "und"


def _codec(stream: Any) -> str:
    return str(stream.codec_context.name) if stream.codec_context is not None else "unknown"


def _decoded(container: Any, streams: dict[int, Any]) -> dict[int, Subtitles]:
    """The subtitles of streams, by their indexes."""
    import av

    if not streams:
        return {}
    origin = (container.start_time or 0) / av.time_base
    found: dict[int, list[Subtitle]] = {index: [] for index in streams}
    bad = dict.fromkeys(streams, 0)
    characters = 0
    for packet in container.demux(list(streams.values())):
        if not packet.size:
            continue
        own = packet.stream.index
        if packet.pts is None or packet.is_corrupt:
            bad[own] += 1
            continue
        try:
            text = _text(packet.stream.decode2(packet))
        except (av.FFmpegError, ValueError):  # one text is damaged, and the next one may be whole
            bad[own] += 1
            continue
        if not text:
            continue
        characters += len(text)
        if characters > MOST_CHARACTERS:
            raise SubtitlesError("TextTooLong", f"The subtitles have more than {MOST_CHARACTERS:,} characters")
        start = float(packet.pts * packet.time_base) - origin
        length = float((packet.duration or 0) * packet.time_base)
        found[own].append(Subtitle(max(0.0, start), start + length, text))
    return {
        index: Subtitles(
            _with_ends(sorted(shown)),
            f"{bad[index]:,} of its subtitles are damaged or have no time" if bad[index] else "",
        )
        for index, shown in found.items()
    }


def _with_ends(shown: list[Subtitle]) -> list[Subtitle]:
    """Subtitles, of which one without an end gets one."""
    return [
        one if one.end > one.start else one._replace(end=min(following.start, one.start + LONGEST_SECONDS))
        for one, following in pairwise([*shown, Subtitle(float("inf"), 0.0, "")])
    ]


def _text(decoded: Any) -> str:
    if decoded is None:
        return ""
    lines = [line for one in decoded for line in _plain(one.dialogue.decode("utf-8", "replace")).split("\n")]
    return "\n".join(line for line in lines if line)


def _plain(dialogue: str) -> str:
    shown = html.unescape(_TAG.sub("", _DRAWING.sub("", dialogue)).replace("\\N", "\n").replace("\\h", " "))
    return "\n".join(" ".join(line.split()) for line in shown.replace("\0", "").split("\n"))
