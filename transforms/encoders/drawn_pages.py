"""Pages of PDF files by a model of images: the resolution with which they are drawn is part of the space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from schemas.config import Config, EncoderConfig
from schemas.config.encoder import PageEncoderConfig
from schemas.layout import Space, VectorKind
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.encoders.base import Encoder, Model, corpus_modalities

DPI = "page_dpi"
"""The fact of a space."""


@dataclass(frozen=True)
class DrawnPagesModel:
    """A model of images that embeds pages.

    Attributes:
        images: the model of images.
        dpi: pixels per inch.
    """

    images: Model
    dpi: int

    @property
    def config(self) -> EncoderConfig:
        return self.images.config

    @cached_property
    def space(self) -> Space:
        return Space({**self.images.space.facts, DPI: self.dpi})

    @property
    def kind(self) -> VectorKind:
        return self.images.kind

    @property
    def dimensions(self) -> int:
        return self.images.dimensions

    @property
    def modalities(self) -> frozenset[Modality]:
        return self.images.modalities

    @property
    def queries_alone(self) -> frozenset[Modality]:
        """See `transforms.encoders.base.corpus_modalities`."""
        return self.images.modalities - corpus_modalities(self.images)

    @property
    def probe(self) -> pa.Table:
        return self.images.probe

    def check_runnable(self) -> None:
        """See `transforms.encoders.models.Models.check_runnable`."""
        check: Callable[[], None] | None = getattr(self.images, "check_runnable", None)
        if check is not None:
            check()

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return self.images.chunker(config, modality)

    def load(self, sample: Sequence[str] = ()) -> Encoder:
        return self.images.load(sample)


def of_drawn_pages(model: Model, config: PageEncoderConfig) -> Model:
    """A model for a corpus of pages that are drawn; one that does not embed images stays as it is."""
    return DrawnPagesModel(model, config.dpi) if Modality.IMAGE in model.modalities else model
