"""A model of images before it is loaded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from schemas.config import Config
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.pages import PagesChunker
from transforms.chunk.whole import WholeChunker
from transforms.encoders.base import media_inputs
from transforms.encoders.media.media_model import MediaModel


@dataclass(frozen=True)
class ImageModel(MediaModel):
    """A model that embeds images."""

    modalities: ClassVar = frozenset({Modality.IMAGE})
    extra: ClassVar = "image"

    @property
    def probe(self) -> pa.Table:
        return media_inputs([probe_image()])

    def chunker(self, config: Config, modality: Modality) -> Chunker:  # noqa: ARG002 (it has one)
        return PagesChunker(config) if config.corpus.pages is not None else WholeChunker(config)


def probe_image() -> bytes:
    """A small image that every encoder can embed, as a PNG file."""
    from PIL import Image

    image = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
