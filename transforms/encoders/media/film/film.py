"""Films as every encoder of vecbeam sees them: frames by time, in RGB, upright, with square pixels.

PyAV decodes MPEG-4, QuickTime, WebM, Matroska and AVI. The content tells which one it is. vecbeam chooses the demuxer,
not FFmpeg: some of its others open files and addresses that a file names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from schemas.errors import EncoderError
from transforms.encoders.media.content import RefusedError
from transforms.support.film_container import container_of, more_frames_than_bytes, nothing_else
from transforms.support.item_error import said_by_library

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 1 << 26
"""A film with larger frames is refused before a frame is decoded: 8,192 x 8,192."""
MAX_SECONDS = 48 * 3600
"""A longer film is refused: its header is damaged, or it is many films."""
MISSING_SECONDS = 1.0
"""A film may be so much shorter than its header says: the last frame's own length is often not known."""
_AHEAD = 5.0
"""Seconds that are decoded instead of searching for a later time: key frames are mostly up to 10 s apart."""
_HALF_A_MILLISECOND = 0.0005
"""Matroska rounds times to milliseconds."""
_MICROSECONDS = 1_000_000


class Film:
    """An open film.

    Args:
        container: of PyAV.

    Raises:
        RefusedError: `NoPicture`, `UnknownCodec` or `TooManyPixels`.
    """

    def __init__(self, container: Any) -> None:
        self._container = container
        self._picture = _picture_of(container)
        self._origin = (container.start_time or 0) / _MICROSECONDS

    @property
    def container(self) -> Any:
        """PyAV's container."""
        return self._container

    @property
    def origin(self) -> float:
        """The time in the file that is the second 0 of the film."""
        return self._origin

    @property
    def has_sound(self) -> bool:
        """Whether there is a sound track that can be decoded."""
        return any(one.codec_context is not None for one in self._container.streams.audio)

    def seconds(self) -> float:
        """How long the film is: to the end of its last frame or sound, whichever is later.

        The header counts where the end of the file agrees; packets near the end are read, and nothing is decoded.

        Raises:
            RefusedError: `EmptyFilm`, `DamagedFilm` where the header promises more, or `FilmTooLong`.
        """
        promised = (self._container.duration or 0) / _MICROSECONDS
        if promised > MAX_SECONDS:
            raise _too_long(promised)
        with decoding():
            end = self._end(self._origin + promised) if promised > 0 else None
            end = self._end(None) if end is None else end
        if end is None:
            raise RefusedError("EmptyFilm", "The film has no frames")
        # A Matroska file promises its end, others their length.
        if promised - max(end, end - self._origin) > MISSING_SECONDS:
            raise RefusedError(
                "DamagedFilm",
                f"The film is cut: its header promises {promised:.1f} s, and it ends at {end - self._origin:.1f} s",
            )
        if end - self._origin > MAX_SECONDS:
            raise _too_long(end - self._origin)
        return end - self._origin

    def frames(self, times: Sequence[float]) -> Iterator[Image]:
        """The frame that is shown at each time; before the first frame that one, and after the last the last.

        Each is converted when it is requested, so that the caller can scale it down before the next one is decoded.

        Args:
            times: seconds, rising.

        Raises:
            RefusedError: `EmptyFilm` or `DamagedFilm`.
        """
        shown = coming = None
        source: Iterator[Any] = iter(())
        for time in times:
            with decoding():
                if shown is None or (coming is not None and time - self._time(shown) > _AHEAD):
                    source = self._decoded_from(time)
                    shown, coming = None, next(source, None)
                while coming is not None and self._time(coming) <= time + _HALF_A_MILLISECOND:
                    shown, coming = coming, next(source, None)
                frame = shown if shown is not None else coming
                if frame is None:
                    raise RefusedError("EmptyFilm", "The film has no frames that can be decoded")
                if frame.is_corrupt:
                    raise RefusedError("DamagedFilm", f"The frame at {time:.2f} s is damaged")
                image = self._upright(frame)
            yield image

    def every(self, step: float) -> Iterator[tuple[float, Any]]:
        """The time of the first frame and PyAV's frame, and of each that is so many seconds after the one before.

        Raises:
            RefusedError: `DamagedFilm`.
        """
        at: float | None = None
        source: Iterator[Any] | None = None
        while True:
            with decoding():
                source = self._decoded_from(0.0) if source is None else source
                frame = next(source, None)
            if frame is None:
                return
            time = self._time(frame)
            if at is None or time - at >= step - _HALF_A_MILLISECOND:
                at = time
                yield time, frame

    def _end(self, near: float | None) -> float | None:
        """The end of the last packet of picture or sound, in the file's time; from the beginning, or from near."""
        import av

        try:
            self._seek(near)
        except av.FFmpegError:
            if near is not None:
                return None
        end = None
        for packet in self._container.demux(self._picture, *self._container.streams.audio):
            if packet.size and (packet.pts if packet.pts is not None else packet.dts) is not None:
                length = float((packet.duration or 0) * packet.time_base)
                if not length and packet.stream is self._picture:
                    length = 1 / float(self._picture.average_rate or 25)
                begins = float((packet.pts if packet.pts is not None else packet.dts) * packet.time_base)
                end = max(end if end is not None else begins, begins + length)
        return end

    def _decoded_from(self, time: float) -> Iterator[Any]:
        """Frames from one that is shown at a time or before; all of them where the file's index is wrong."""
        import av

        try:
            self._seek(self._origin + time)
            source = iter(self._container.decode(self._picture))
            first = next(source, None)
            if first is not None and self._time(first) <= time + _HALF_A_MILLISECOND:
                return _with(first, source)
        except av.FFmpegError:
            pass
        self._seek(None)
        return iter(self._container.decode(self._picture))

    def _seek(self, time: float | None) -> None:
        """Moves to the last key frame at a time of the file or before, or to the beginning."""
        wanted = self._origin if time is None else max(time, self._origin)
        self._container.seek(int(wanted / self._picture.time_base), stream=self._picture, backward=True)

    def _time(self, frame: Any) -> float:
        return float(frame.pts * frame.time_base) - self._origin

    def _upright(self, frame: Any) -> Image:
        from PIL import Image as library

        # Pixels that are wider than high, as on DVDs, count as so many.
        width = max(1, round(frame.width * float(self._picture.sample_aspect_ratio or 1)))
        if max(width, frame.width) * frame.height > MAX_PIXELS:
            raise _too_many_pixels(max(width, frame.width), frame.height)
        image: Image = frame.to_image()
        if width != frame.width:
            image = image.resize((width, frame.height), library.Resampling.BICUBIC)
        turns = round(frame.rotation / 90) % 4
        kinds = (library.Transpose.ROTATE_90, library.Transpose.ROTATE_180, library.Transpose.ROTATE_270)
        return image.transpose(kinds[turns - 1]) if turns else image


@contextmanager
def opened_film(stream: BinaryIO) -> Iterator[Film]:
    """A film in a stream.

    Raises:
        RefusedError: `EmptyFile`, `NotFilm`, `DamagedFilm`, `NoPicture`, `UnknownCodec` or `TooManyPixels`.
        EncoderError: if PyAV or Pillow is not installed.
    """
    with opened_container(stream) as container:
        yield Film(container)


@contextmanager
def opened_container(stream: BinaryIO) -> Iterator[Any]:
    """PyAV's container of a film in a stream; raises what `opened_film` raises."""
    try:
        import av
        import PIL  # noqa: F401 (frames become images of it)
    except ImportError as error:
        raise EncoderError(f"PyAV and Pillow are needed for films: {error}", "pip install 'vecbeam[video]'") from error
    stream.seek(0)
    head = stream.read(64)
    stream.seek(0)
    if not head:
        raise RefusedError("EmptyFile", "The file has no bytes")
    format = container_of(head)
    if format is None:
        raise RefusedError(
            "NotFilm",
            f"The file is not of MPEG-4, QuickTime, WebM, Matroska or AVI; it begins with {head[:16]!r}",
        )
    with decoding():
        # The demuxer itself decodes some frames where the header does not describe them.
        options = {"max_pixels": str(MAX_PIXELS)}
        try:
            container = av.open(stream, format=format, options=options, io_open=nothing_else)
        except EOFError as error:  # PyAV's own is one too
            raise RefusedError("EmptyFilm", "The file ends before its first frame") from error
    with container:
        if why := more_frames_than_bytes(container):
            raise RefusedError("DamagedFilm", f"The film is damaged: {why}")
        yield container


@contextmanager
def decoding() -> Iterator[None]:
    """Makes errors of PyAV the reject of one item."""
    try:
        yield
    except (RefusedError, EncoderError, MemoryError):
        raise
    except Exception as error:  # PyAV raises errors of many kinds for damaged files
        raise RefusedError("DamagedFilm", f"The film can't be decoded: {said_by_library(error)}") from error


def _picture_of(container: Any) -> Any:
    from av.stream import Disposition

    # A recording's cover is not a picture that moves.
    pictures = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not pictures:
        raise RefusedError("NoPicture", "The file has no picture, only sound or subtitles")
    picture = pictures[0]
    codec = picture.codec_context
    if codec is None:
        raise RefusedError("UnknownCodec", "The film's picture is in a codec that PyAV can't decode")
    if not codec.width * codec.height:
        # So PyAV opens a film whose first frame is too large.
        raise RefusedError("TooManyPixels", f"The film has more than {MAX_PIXELS:,} pixels, or a size of 0")
    if codec.width * codec.height > MAX_PIXELS:
        raise _too_many_pixels(codec.width, codec.height)
    # Films are decoded on all cores already, each by one thread.
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    codec.thread_count = 1
    return picture


def _with(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _too_long(seconds: float) -> RefusedError:
    return RefusedError("FilmTooLong", f"The film has {seconds:,.0f} s, more than {MAX_SECONDS:,}; split it")


def _too_many_pixels(width: int, height: int) -> RefusedError:
    return RefusedError(
        "TooManyPixels", f"The film has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}; scale it down"
    )
