"""A model of recordings before it is loaded."""

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
from transforms.encoders.media.media_model import MediaModel
from transforms.encoders.media.sound_encoder import Hearing, durations
from transforms.support.extras import need

PACKAGES = ("soundfile", "soxr", "av")
"""What every model of recordings needs."""


@dataclass(frozen=True)
class SoundModel(MediaModel):
    """A model that embeds recordings; `packages` are those in addition to `PACKAGES`.

    Attributes:
        hearing: what it takes.
    """

    hearing: Hearing

    modalities: ClassVar = frozenset({Modality.AUDIO})
    extra: ClassVar = "audio"

    @property
    def max_seconds(self) -> float:
        """The longest window that it takes; see `transforms.encoders.models.Models.cutting`."""
        return self.hearing.longest

    @property
    def usual_seconds(self) -> float:
        """See `transforms.chunk.seconds.Timing`."""
        return self.max_seconds

    @property
    def shortest(self) -> float:
        """Seconds that it needs."""
        return self.hearing.shortest

    @property
    def name(self) -> str:
        """For messages."""
        return self.config.model

    @property
    def probe(self) -> pa.Table:
        return media_inputs([probe_sound()])

    def check_runnable(self) -> None:
        need(self.extra, self.config.model, *PACKAGES)
        super().check_runnable()

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return SecondsChunker(config, self, modality)

    def borders(self, addresses: list[str]) -> Iterator[list[float] | tuple[str, str]]:
        """Only films have scenes; the configuration refuses them for recordings."""
        raise NotImplementedError

    def durations(self, addresses: list[str]) -> Iterator[float | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return durations(addresses, self.shortest)


def probe_sound() -> bytes:
    """A second of a rising tone, which every encoder can embed, as a wav file."""
    import soundfile

    stream = io.BytesIO()
    times = np.arange(16_000) / 16_000
    soundfile.write(stream, 0.5 * np.sin(2 * np.pi * (200 + 400 * times) * times), 16_000, format="WAV")
    return stream.getvalue()
