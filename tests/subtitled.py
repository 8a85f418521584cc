"""Films with subtitles, as PyAV writes them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from films import film

SAID = ((0.2, 0.9, "Hello {\\i1}there{\\i0}\\Nyou"), (1.0, 1.5, "<b>Ships</b> &amp; harbours"), (3.2, 3.9, "the end"))
_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize, PrimaryColour, "
    b"SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, "
    b"BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,"
    b"&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, "
    b"Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)


def subtitled(
    said: Sequence[tuple[float, float, str]] = SAID,
    format: str = "matroska",
    codec: str = "subrip",
    *,
    scenes: Sequence[int] = (1, 2),
    damaged: int | None = None,
    language: str = "",
    others: Sequence[tuple[str, str, Sequence[tuple[float, float, str]]]] = (),
    **how: Any,
) -> bytes:
    """A film of two seconds a scene with subtitles.

    Args:
        said: from when to when, and what, as a line of ASS.
        damaged: number of the subtitle whose bytes are none.
        language: that the track says.
        others: further tracks: of each the language, the disposition, and what is said.
    """
    import av
    from av.stream import Disposition
    from av.subtitles.subtitle import SubtitleSet

    data = film(scenes, 2.0, format=format, codec="libvpx-vp9" if format == "webm" else "libx264", **how)
    stream = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(stream, "w", format=format) as container:
        tracks = {one.index: container.add_stream_from_template(one) for one in source.streams}
        every: list[tuple[Any, Sequence[tuple[float, float, str]]]] = []
        for its_language, disposition, its_texts in ((language, "", said), *others):
            track: Any = container.add_stream(codec)
            track.codec_context.subtitle_header = _HEADER
            if its_language:
                track.metadata["language"] = its_language
            if disposition:
                track.disposition = Disposition[disposition]
            every.append((track, its_texts))
        packets = [
            (float(one.pts * one.time_base), one, tracks[one.stream.index]) for one in source.demux() if one.size
        ]
        container.start_encoding()
        for track, its_texts in every:
            for number, (start, end, text) in enumerate(its_texts):
                line = f"0,0,Default,,0,0,0,,{text}".encode()
                made = track.codec_context.encode_subtitle(
                    SubtitleSet.create(line, 0, round((end - start) * 1000), round(start * 1000))
                )
                if number == damaged:
                    times = made.pts, made.duration
                    made = av.Packet(b"\xff\xff\xff")
                    made.pts = made.dts = times[0]
                    made.duration = times[1]
                made.time_base = Fraction(1, 1000)
                packets.append((start, made, track))
        # In the order of the file, and frames that depend on later ones in their own.
        for _, packet, its_track in sorted(
            packets, key=lambda one: one[0] if any(one[2] is track for track, _ in every) else 0.0
        ):
            packet.stream = its_track
            container.mux(packet)
    return stream.getvalue()
