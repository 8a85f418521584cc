"""A model of recordings before it is loaded: what its facts determine, whatever reads its files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.chunk.seconds import SecondsChunker
from transforms.encoders.base import Encoder, media_inputs
from transforms.encoders.engines.extra import need
from transforms.encoders.media.sound_encoder import Hearing, durations

PACKAGES = ("soundfile", "soxr", "av")
"""What every model of recordings needs."""


@dataclass(frozen=True)
class SoundModel:
    """A model that embeds recordings.

    Attributes:
        facts: of its space; `dimensions` and `normalize` are among them.
        hearing: what it takes.
        loader: loads the weights.
        packages: that it needs in addition to `PACKAGES`.
    """

    config: EncoderConfig
    facts: Mapping[str, Any]
    hearing: Hearing
    loader: Callable[[], Encoder]
    packages: Sequence[str]

    kind: ClassVar = VectorKind.DENSE
    modalities: ClassVar = frozenset({Modality.AUDIO})

    @cached_property
    def space(self) -> Space:
        return Space(self.facts)

    @property
    def dimensions(self) -> int:
        return int(self.facts["dimensions"])

    @property
    def max_seconds(self) -> float:
        """The longest window that it takes; see `transforms.encoders.models.Models.cutting`."""
        return self.hearing.longest

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
        """See `transforms.encoders.models.Models.check_runnable`."""
        need("audio", self.config.model, *PACKAGES, *self.packages)

    def chunker(self, config: Config) -> SecondsChunker:
        return SecondsChunker(config, self)

    def durations(self, uris: list[str]) -> Iterator[float | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return durations(uris, self.shortest)

    def load(self, sample: Sequence[str] = ()) -> Encoder:  # noqa: ARG002 (the protocol's)
        self.check_runnable()
        return self.loader()


def probe_sound() -> bytes:
    """A second of a rising tone, which every encoder can embed, as a wav file."""
    import soundfile

    stream = io.BytesIO()
    times = np.arange(16_000) / 16_000
    soundfile.write(stream, 0.5 * np.sin(2 * np.pi * (200 + 400 * times) * times), 16_000, format="WAV")
    return stream.getvalue()
