"""Films that tests make, with sound and without, in each container; and files with one fault each."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from drawings import drawing
from PIL import Image
from recordings import tune

RATE = 16_000


def scene(number: int, frame: int = 0, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A frame of a scene that no other number gives: a drawing, with a bar that moves."""
    image = drawing(number, size)
    pixels = np.asarray(image).copy()
    place = frame * 4 % (size[0] - 8)
    pixels[:, place : place + 8] = 255
    return Image.fromarray(pixels)


def film(
    scenes: Sequence[int] = (0,),
    seconds: float = 1.0,
    *,
    format: str = "mp4",
    codec: str = "libx264",
    rate: int = 12,
    size: tuple[int, int] = (160, 120),
    sound: int | None = None,
    seconds_of_sound: float | None = None,
    rotation: int = 0,
    times: Sequence[int] = (),
    **options: str,
) -> bytes:
    """A film of some scenes.

    Args:
        seconds: of each scene.
        sound: number of a tune; None for no sound track.
        seconds_of_sound: as long as the film for None.
        rotation: degrees counterclockwise by which players turn it.
        times: of the frames, in milliseconds, instead of `rate`.
    """
    import av

    stream = io.BytesIO()
    per_scene = round(seconds * rate)
    speed = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx-vp9" else {}
    with av.open(stream, "w", format=format) as container:
        picture = container.add_stream(codec, rate=rate, options=speed | options)
        picture.width, picture.height = size
        picture.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if times:
            picture.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            picture.set_display_rotation(rotation)
        if sound is not None:
            track = container.add_stream("libopus" if format == "webm" else "aac", rate=48_000)
            track.layout = "mono"
        container.start_encoding()
        pictures = (scene(number, frame, size) for number in scenes for frame in range(per_scene))
        for number, image in enumerate(pictures):
            frame = av.VideoFrame.from_image(image)
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound is not None:
            for block in _blocks(tune(sound, seconds_of_sound or seconds * len(scenes), 48_000)):
                container.mux(track.encode(block))
            container.mux(track.encode(None))
    return stream.getvalue()


def _blocks(sound: np.ndarray[Any, Any]) -> Iterator[Any]:
    import av

    for start in range(0, len(sound), 960):
        block = av.AudioFrame.from_ndarray(sound[None, start : start + 960].copy(), "flt", "mono")
        block.sample_rate, block.pts, block.time_base = 48_000, start, Fraction(1, 48_000)
        yield block


def write_films(folder: Path, count: int, **how: Any) -> list[Path]:
    """Films of two seconds, each of its own scene."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"film-{number:02d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(film((number,), 2.0, **how))
    return paths


def shown_at(data: bytes, times: Sequence[float]) -> list[Image.Image]:
    """The frames that are shown at some times, by decoding all of them in order with PyAV."""
    import av

    with av.open(io.BytesIO(data)) as container:
        frames = [(float(frame.time), frame.to_image()) for frame in container.decode(video=0)]
        begin = (container.start_time or 0) / 1_000_000
    found = []
    for time in times:
        before = [image for at, image in frames if at - begin <= time + 0.0005]
        found.append(before[-1] if before else frames[0][1])
    return found


def remuxed(data: bytes, format: str, **options: str) -> bytes:
    """The same film in another container, such as a live one, which has neither a length nor an index."""
    import av

    stream = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(stream, "w", format=format, options=options) as container:
        tracks = {one.index: container.add_stream_from_template(one) for one in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = tracks[packet.stream.index]
                container.mux(packet)
    return stream.getvalue()


def without_index(data: bytes) -> bytes:
    """A Matroska or AVI file that ends before its index."""
    return data[: max(data.rfind(b"\x1c\x53\xbb\x6b"), data.rfind(b"idx1"))]


def lying(data: bytes, times: float) -> bytes:
    """A Matroska file whose header promises so many times its length."""
    place = data.index(b"\x44\x89\x88") + 3
    (length,) = struct.unpack_from(">d", data, place)
    return data[:place] + struct.pack(">d", length * times) + data[place + 8 :]


def bomb(side: int) -> bytes:
    """An AVI of JPEG whose header and frames promise so many pixels each way."""
    data = bytearray(film(format="avi", codec="mjpeg", seconds=0.5))
    place = data.find(b"\xff\xc0")
    while place >= 0:
        struct.pack_into(">HH", data, place + 5, side, side)
        place = data.find(b"\xff\xc0", place + 2)
    header = data.index(b"strf") + 12
    struct.pack_into("<II", data, header, side, side)
    return bytes(data)


def sound_alone(format: str = "mp4") -> bytes:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format=format) as container:
        track = container.add_stream("aac", rate=48_000)
        track.layout = "mono"
        for block in _blocks(tune(1, 0.5, 48_000)):
            container.mux(track.encode(block))
        container.mux(track.encode(None))
    return stream.getvalue()


def _with_index_first(data: bytes) -> bytes:
    """An MPEG-4 film whose index is before its frames: the muxer needs a file for that."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "film.mp4")
        with av.open(io.BytesIO(data)) as source, av.open(path, "w", options={"movflags": "faststart"}) as container:
            picture = container.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = picture
                    container.mux(packet)
        return Path(path).read_bytes()


def promising_frames(data: bytes, frames: int) -> bytes:
    """An MPEG-4 film whose index promises so many frames of one byte."""
    made = bytearray(data)
    for box, place in ((b"stsz", 8), (b"stsc", 16)):
        at = made.find(box) + place
        values = (1, frames) if box == b"stsz" else (frames,)
        made[at : at + 4 * len(values)] = struct.pack(f">{len(values)}I", *values)
    return bytes(made)


def damaged() -> dict[str, tuple[bytes, str]]:
    """Files that are not a film, or a damaged one, and the error that each is rejected with."""
    whole = film((900, 901))
    at_the_front = _with_index_first(whole)
    matroska = film((900, 901), format="matroska")
    return {
        "no-index.mp4": (whole[: len(whole) * 2 // 3], "DamagedFilm"),
        "cut.mp4": (at_the_front[: len(at_the_front) * 2 // 3], "DamagedFilm"),
        "cut.mkv": (matroska[: len(matroska) // 2], "DamagedFilm"),
        "promises.mkv": (lying(matroska, 50), "DamagedFilm"),
        "codec.mp4": (whole.replace(b"avc1", b"zzz1"), "UnknownCodec"),
        "page.mp4": (b"<html><body>Not found</body></html>", "NotFilm"),
        "sound.mp4": (sound_alone(), "NoPicture"),
        "bomb.avi": (bomb(50_000), "TooManyPixels"),
        "frames.mp4": (promising_frames(film((900,)), 1_000_000), "DamagedFilm"),
        "no-frames.webm": (film((), format="webm", codec="libvpx-vp9"), "EmptyFilm"),
        "empty.mov": (b"", "EmptyFile"),
    }
