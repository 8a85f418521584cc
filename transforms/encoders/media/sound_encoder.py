"""Recordings to vectors: each row's seconds decoded and prepared on all cores ahead of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.encoders.media import sound
from transforms.encoders.media.ahead import mapped
from transforms.encoders.media.content import RefusedError, contents_of, opened
from transforms.encoders.media.film import film_sound
from transforms.encoders.media.media_encoder import BatchEncoder, Prepared
from transforms.encoders.media.segments import MILLISECONDS, Segment, segments

Floats = NDArray[np.float32]


class Hearing(NamedTuple):
    """What a model takes.

    Attributes:
        rate: samples per second.
        shortest: seconds; less is refused.
        longest: seconds; what is over them is dropped and counted.
    """

    rate: int
    shortest: float
    longest: float


@dataclass(frozen=True)
class SoundEncoder(BatchEncoder):
    """A model of recordings, loaded; see `BatchEncoder`.

    Attributes:
        hearing: what the model takes.
        features: samples, float32[n], to an input of the model; raises RefusedError.
        embed: a batch of inputs to vectors, float32[n, at least dimensions].
    """

    dimensions: int
    normalize: bool
    batch: int
    described: Mapping[str, str]
    hearing: Hearing
    features: Callable[[Floats], Prepared]
    embed: Callable[[list[Prepared]], Floats]

    def _vectors(self, group: list[Prepared]) -> Floats:
        return self.embed(group)

    def _prepared_rows(self, inputs: pa.Table) -> Iterator[Prepared | RefusedError]:
        return mapped(self._heard, segments(inputs), 2 * self.batch)

    def _heard(self, row: Segment) -> Prepared | RefusedError:
        rate, shortest, longest = self.hearing
        end = row.start + longest if row.end is None else min(row.end, row.start + longest)
        try:
            with opened(row.address, row.data) as stream:
                heard = film_sound.decode(stream, rate, row.start, end, measured=row.end is None)
            if heard.seconds < shortest:
                raise too_short(heard.seconds, shortest)
            prepared = self.features(heard.samples[: round(longest * rate)])
        except RefusedError as error:
            return error
        over = (heard.total if row.end is None else row.end) - end
        dropped = row.dropped + round(max(0.0, over) * MILLISECONDS)
        return prepared._replace(amount=round(heard.seconds * MILLISECONDS), dropped=dropped)


def too_short(seconds: float, shortest: float) -> RefusedError:
    """For a recording that has less than a model needs."""
    return RefusedError("SoundTooShort", f"The recording has {seconds:.4g} s, and the model needs {shortest:g} s")


def durations(addresses: list[str], shortest: float) -> Iterator[float | tuple[str, str]]:
    """The seconds of each file, or the error and the reason why there are none.

    Args:
        addresses: see `schemas.locator`.
        shortest: seconds; less is refused.

    Raises:
        CorpusError: if the storage fails.
        EncoderError: if a library is not installed.
    """

    def found(content: tuple[str, bytes | None]) -> float | tuple[str, str]:
        try:
            with opened(*content) as stream:
                seconds = sound.seconds_of(stream)
            if seconds < shortest:
                raise too_short(seconds, shortest)
        except RefusedError as error:
            return error.error, error.reason
        return seconds

    return mapped(found, contents_of(addresses), 32)
