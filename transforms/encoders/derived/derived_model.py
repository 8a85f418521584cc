"""What models made of another model have in common, before they are loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.seconds import SecondsChunker
from transforms.encoders.base import Encoder, Model
from transforms.encoders.media.film.film_encoder import borders, durations
from transforms.encoders.media.film.film_model import PACKAGES, USUAL
from transforms.encoders.media.film.subtitled_chunks import with_subtitles
from transforms.support.extras import need


@dataclass(frozen=True)
class DerivedModel:
    """A model that is as another one, except for what a subclass says.

    Attributes:
        inner: the other model, which computes the vectors.
    """

    inner: Model

    @property
    def config(self) -> EncoderConfig:
        return self.inner.config

    @property
    def space(self) -> Space:
        return self.inner.space

    @property
    def kind(self) -> VectorKind:
        return self.inner.kind

    @property
    def dimensions(self) -> int:
        return self.inner.dimensions

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.inner.modalities

    @property
    def probe(self) -> pa.Table:
        return self.inner.probe

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        check: Callable[[], None] | None = getattr(self.inner, "check_runnable", None)
        if check is not None:
            check()

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return self.inner.chunker(config, modality)

    def load(self, sample: Sequence[str] = ()) -> Encoder:
        return self.inner.load(sample)


@dataclass(frozen=True)
class FilmPartModel(DerivedModel, ABC):
    """A model that embeds a part of films: frames, sound or subtitles."""

    packages: ClassVar[tuple[str, ...]] = PACKAGES
    """What reading that part needs."""
    has_sound: ClassVar = False
    """Whether a film without sound is a reject."""

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.inner.modalities | {Modality.VIDEO}

    @property
    def name(self) -> str:
        """For messages."""
        return self.config.model

    @property
    @abstractmethod
    def max_seconds(self) -> float:
        """See `transforms.chunk.seconds.Timing`."""

    @property
    def usual_seconds(self) -> float:
        """See `transforms.chunk.seconds.Timing`."""
        return min(USUAL, self.max_seconds)

    @property
    @abstractmethod
    def shortest(self) -> float:
        """See `transforms.chunk.seconds.Timing`."""

    def durations(self, addresses: list[str]) -> Iterator[float | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return durations(addresses, with_sound=self.has_sound)

    def borders(self, addresses: list[str]) -> Iterator[list[float] | tuple[str, str]]:
        """See `transforms.chunk.seconds.Timing`."""
        return borders(addresses, with_sound=self.has_sound)

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        need("video", "a film", *self.packages)
        super().check_runnable()

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        if modality is not Modality.VIDEO:
            return super().chunker(config, modality)
        return with_subtitles(SecondsChunker(config, self, modality), config, modality)
