"""A model of films before it is loaded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import Config
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.seconds import SecondsChunker
from transforms.encoders.base import media_inputs
from transforms.encoders.media.film.film_encoder import borders, durations
from transforms.encoders.media.film.sampling import Sampling
from transforms.encoders.media.film.subtitled_chunks import with_subtitles
from transforms.encoders.media.media_model import MediaModel
from transforms.support.extras import need

PACKAGES = ("av", "PIL")
"""What every model of films needs."""
USUAL = 10.0
"""Seconds of a segment where the configuration does not say how many."""
SHORTEST = 0.1
"""Seconds: the last segment of a film begins earlier where it would be shorter."""


@dataclass(frozen=True)
class FilmModel(MediaModel):
    """A model that embeds films; `packages` are those in addition to `PACKAGES`.

    Attributes:
        sampling: which frames of a segment it gets.
    """

    sampling: Sampling

    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.VIDEO})
    extra: ClassVar = "video"
    shortest: ClassVar = SHORTEST
    usual_seconds: ClassVar = USUAL

    @property
    def max_seconds(self) -> float:
        """The longest segment that it takes; see `transforms.encoders.models.Models.cutting`."""
        return self.sampling.longest

    @property
    def name(self) -> str:
        """For messages."""
        return self.config.model

    @property
    def probe(self) -> pa.Table:
        return media_inputs([probe_film()])

    def check_runnable(self) -> None:
        need(self.extra, self.config.model, *PACKAGES)
        super().check_runnable()

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return with_subtitles(SecondsChunker(config, self, modality), config, modality)

    def durations(self, addresses: list[str]) -> Iterator[float | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return durations(addresses)

    def borders(self, addresses: list[str]) -> Iterator[list[float] | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return borders(addresses)


def probe_film() -> bytes:
    """Half a second of a changing colour, which every encoder of films can embed, as an AVI file."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="avi") as container:
        picture = container.add_stream("mjpeg", rate=16)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
        for number in range(8):
            pixels = np.full((64, 64, 3), (30 * number, 128, 255 - 30 * number), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(picture.encode(None))
    return stream.getvalue()
