"""Pages of PDF files by a model of images: the resolution with which they are drawn is part of the space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from schemas.config.encoder import PageEncoderConfig
from schemas.layout import Space
from schemas.modality import Modality
from transforms.encoders.base import Model, corpus_modalities
from transforms.encoders.derived.derived_model import DerivedModel

DPI = "page_dpi"
"""The fact of a space."""


@dataclass(frozen=True)
class DrawnPagesModel(DerivedModel):
    """A model of images that embeds pages.

    Attributes:
        dpi: pixels per inch.
    """

    dpi: int

    @cached_property
    def space(self) -> Space:
        return Space({**self.inner.space.facts, DPI: self.dpi})

    @property
    def queries_alone(self) -> frozenset[Modality]:
        """See `transforms.encoders.base.corpus_modalities`."""
        return self.inner.modalities - corpus_modalities(self.inner)


def of_drawn_pages(model: Model, config: PageEncoderConfig) -> Model:
    """A model for a corpus of pages that are drawn; one that does not embed images stays as it is."""
    return DrawnPagesModel(model, config.dpi) if Modality.IMAGE in model.modalities else model
