"""Films by any model of recordings: the vector of a segment is that of its sound.

Its space is that of the model: a recording finds the segments that sound like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders.base import Encoder, Model
from transforms.encoders.derived.derived_model import FilmPartModel
from transforms.encoders.derived.frames import refuse_frames
from transforms.encoders.media.sound_model import SoundModel


@dataclass(frozen=True)
class SoundTrackModel(FilmPartModel):
    """A model of recordings that embeds the sound of films."""

    inner: SoundModel
    has_sound: ClassVar = True

    @property
    def max_seconds(self) -> float:
        return self.inner.max_seconds

    @property
    def shortest(self) -> float:
        return self.inner.shortest

    def load(self, sample: Sequence[str] = ()) -> Encoder:
        self.check_runnable()
        return super().load(sample)


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
