"""Images and texts in one space: CLIP, SigLIP and SigLIP 2, of one size of images and of many (NaFlex).

Radford et al., Learning Transferable Visual Models From Natural Language Supervision: https://arxiv.org/abs/2103.00020
Zhai et al., Sigmoid Loss for Language Image Pre-Training: https://arxiv.org/abs/2303.15343
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from schemas.config import Config, EncoderConfig
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.text import TextChunker
from transforms.encoders.media.image import decoding_fact
from transforms.encoders.media.image_model import ImageModel
from transforms.encoders.media.two_towers import TwoTowerEncoder
from transforms.encoders.model_files import lowered, weights_digest
from transforms.encoders.model_source import ModelSource, Prompts
from transforms.encoders.transformers.architectures import IMAGE_TEXT, Padding, projected_dimensions
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.naflex import patch_preparation
from transforms.encoders.transformers.pixels import PACKAGES, RESAMPLING, preparation
from transforms.encoders.transformers.text_tower import ReadsTexts, text_tower, tokenizer_facts
from transforms.support.extras import version_of


@dataclass(frozen=True)
class ImageTextModel(ReadsTexts, ImageModel):
    """A folder with two towers; images and texts, of a corpus and as queries."""

    folder: Path

    modalities: ClassVar = frozenset({Modality.IMAGE, Modality.TEXT})

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return TextChunker(config, self) if modality is Modality.TEXT else super().chunker(config, modality)


def describe_image_text(config: EncoderConfig, source: ModelSource, files: ModelFolder) -> ImageTextModel:
    """The model in a folder.

    Raises:
        ConfigurationError: if a file does not exist.
        EncoderError: if the weights are not the pinned ones.
    """
    towers = IMAGE_TEXT[files.model_type]
    own = projected_dimensions(files.model_type, files.settings)
    processing = files.processing("image_processor")
    texts = files.settings.get("text_config") or {}
    tokens = int(texts.get("max_position_embeddings") or towers.tokens)
    source.compare(own, tokens, Prompts())
    facts = {
        "family": "transformers",
        "weights": weights_digest([files.folder], source.weights_sha256),
        "architecture": files.architecture,
        "image": processing,
        "resampling": RESAMPLING,
        "decoding": decoding_fact(config),
        "tokenizer": tokenizer_facts(files.folder),
        "padding": str(towers.padding),
        "max_tokens": tokens,
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    return ImageTextModel(config, facts, partial(_load, config, files, facts), PACKAGES, files.folder)


def _load(config: EncoderConfig, files: ModelFolder, facts: dict[str, Any]) -> TwoTowerEncoder:
    from transforms.encoders.engines.torch.forward import forward

    towers = IMAGE_TEXT[files.model_type]
    preparing = (patch_preparation if towers.in_patches else preparation)(files.folder)
    model = files.load()
    images = forward(model, config, preparing.before(_of_images), transformers=version_of("transformers") or "")
    texts = forward(model, config, _of_texts)
    tower = text_tower(files.folder, facts["max_tokens"], Padding(facts["padding"]), texts.run)
    return TwoTowerEncoder(preparing.encoder(config, facts, images), tower)


def _of_images(model: Any, images: Any) -> Any:
    named = images if isinstance(images, dict) else {"pixel_values": images}
    return model.get_image_features(**named).pooler_output


def _of_texts(model: Any, tokens: Any, mask: Any = None) -> Any:
    return model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
