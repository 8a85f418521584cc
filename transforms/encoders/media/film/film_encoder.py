"""Films to vectors: the frames of each row's segment, decoded and prepared on all cores ahead of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoders.media.ahead import cores, mapped
from transforms.encoders.media.content import RefusedError, contents_of, opened
from transforms.encoders.media.film import scenes
from transforms.encoders.media.film.film import Film, opened_film
from transforms.encoders.media.film.film_sound import no_sound
from transforms.encoders.media.film.sampling import Sampling
from transforms.encoders.media.media_encoder import BatchEncoder, Prepared
from transforms.encoders.media.segments import MILLISECONDS, Segment, segments

if TYPE_CHECKING:
    from PIL.Image import Image

Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class FilmEncoder(BatchEncoder):
    """A model of films, loaded; see `BatchEncoder`.

    Attributes:
        sampling: which frames of a segment it gets.
        prepare: the frames of a segment to an input of the model, float32[frames, ...]. It takes one frame at a time,
            so that a frame in its own size is in memory alone.
        embed: a batch of inputs to vectors, float32[n, at least dimensions].
    """

    dimensions: int
    normalize: bool
    batch: int
    described: Mapping[str, str]
    sampling: Sampling
    prepare: Callable[[Iterator[Image]], Floats]
    embed: Callable[[list[Floats]], Floats]

    def _vectors(self, group: list[Prepared]) -> Floats:
        return self.embed([one.array for one in group])

    def _prepared_rows(self, inputs: pa.Table) -> Iterator[Prepared | RefusedError]:
        return mapped(self._seen, segments(inputs), self.batch + cores())

    def _seen(self, row: Segment) -> Prepared | RefusedError:
        try:
            with opened(row.address, row.data) as stream, opened_film(stream) as film:
                whole = film.seconds() if row.end is None else row.end
                end = min(whole, row.start + self.sampling.longest)
                array = self.prepare(film.frames(self.sampling.times(row.start, end)))
        except RefusedError as error:
            return error
        amount, over = (round(seconds * MILLISECONDS) for seconds in (end - row.start, whole - end))
        return Prepared(np.ascontiguousarray(array, np.float32), amount, row.dropped + over)


def durations(addresses: list[str], *, with_sound: bool = False) -> Iterator[float | tuple[str, str]]:
    """The seconds of each film, or the error and the reason why there are none.

    Args:
        addresses: see `schemas.locator`.
        with_sound: whether a film without a sound track is refused.

    Raises:
        CorpusError: if the storage fails.
        EncoderError: if a library is not installed.
    """
    return _of_each(addresses, Film.seconds, with_sound=with_sound)


def borders(addresses: list[str], *, with_sound: bool = False) -> Iterator[list[float] | tuple[str, str]]:
    """The beginnings of the scenes of each film and its end, or the error and the reason; see `durations`."""
    return _of_each(addresses, scenes.borders, with_sound=with_sound)


def _of_each(
    addresses: list[str], looked_at: Callable[[Film], T], *, with_sound: bool
) -> Iterator[T | tuple[str, str]]:
    def found(content: tuple[str, bytes | None]) -> T | tuple[str, str]:
        try:
            with opened(*content) as stream, opened_film(stream) as film:
                if with_sound and not film.has_sound:
                    raise no_sound()
                return looked_at(film)
        except RefusedError as error:
            return error.error, error.reason

    return mapped(found, contents_of(addresses), 2 * cores())
