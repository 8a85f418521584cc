"""Films by any model of recordings: the vector of a segment is that of its sound.

Its space is that of the model: a recording finds the segments that sound like it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.seconds import SecondsChunker
from transforms.encoders.base import Encoder, Model
from transforms.encoders.frames import refuse_frames
from transforms.encoders.media.film.film_encoder import borders, durations
from transforms.encoders.media.film.film_model import PACKAGES, USUAL
from transforms.encoders.media.film.subtitled_chunks import with_subtitles
from transforms.encoders.media.sound_model import SoundModel
from transforms.support.extras import need


@dataclass(frozen=True)
class SoundTrackModel:
    """A model of recordings that embeds the sound of films.

    Attributes:
        sounds: the model of recordings.
    """

    sounds: SoundModel

    @property
    def config(self) -> EncoderConfig:
        return self.sounds.config

    @property
    def space(self) -> Space:
        return self.sounds.space

    @property
    def kind(self) -> VectorKind:
        return self.sounds.kind

    @property
    def dimensions(self) -> int:
        return self.sounds.dimensions

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.sounds.modalities | {Modality.VIDEO}

    @property
    def probe(self) -> pa.Table:
        return self.sounds.probe

    @property
    def name(self) -> str:
        """For messages."""
        return self.sounds.name

    @property
    def max_seconds(self) -> float:
        """See `transforms.chunk.seconds.Timing`."""
        return self.sounds.max_seconds

    @property
    def usual_seconds(self) -> float:
        """See `transforms.chunk.seconds.Timing`."""
        return min(USUAL, self.max_seconds)

    @property
    def shortest(self) -> float:
        """See `transforms.chunk.seconds.Timing`."""
        return self.sounds.shortest

    def durations(self, addresses: list[str]) -> Iterator[float | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return durations(addresses, with_sound=True)

    def borders(self, addresses: list[str]) -> Iterator[list[float] | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return borders(addresses, with_sound=True)

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        need("video", "a film", *PACKAGES)
        self.sounds.check_runnable()

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        if modality is not Modality.VIDEO:
            return self.sounds.chunker(config, modality)
        return with_subtitles(SecondsChunker(config, self, modality), config, modality)

    def load(self, sample: Sequence[str] = ()) -> Encoder:
        self.check_runnable()
        return self.sounds.load(sample)


def of_sound_tracks(model: Model, config: EncoderConfig) -> SoundTrackModel:
    """The same model for the sound of films.

    Raises:
        ConfigurationError: if it does not embed recordings, or frames are configured.
    """
    if not isinstance(model, SoundModel):
        raise ConfigurationError(
            f"encoder.input: sound is for models of recordings, and {config.model} embeds "
            f"{' and '.join(sorted(model.modalities))}",
            "name a model of recordings, for example whisper-base, or remove input",
        )
    refuse_frames(config)
    return SoundTrackModel(model)
