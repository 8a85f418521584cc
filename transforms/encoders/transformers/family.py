"""The family `transformers`: models of media that transformers' `save_pretrained` wrote.

https://github.com/huggingface/transformers
"""

from __future__ import annotations

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders.base import Model
from transforms.encoders.media.media_model import refuse_text_settings
from transforms.encoders.model_source import ModelSource
from transforms.encoders.transformers.architectures import (
    ARCHITECTURES,
    BACKBONES,
    FILM_BACKBONES,
    FILM_TEXT,
    IMAGE_TEXT,
    PATCHES,
    SOUND_TEXT,
    WITHOUT_PROJECTION,
)
from transforms.encoders.transformers.films.film_backbone import describe_film_backbone
from transforms.encoders.transformers.films.film_text import describe_film_text
from transforms.encoders.transformers.image_backbone import describe_backbone
from transforms.encoders.transformers.image_text import describe_image_text
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.patches.patch_model import describe_patches, refuse_without_projection
from transforms.encoders.transformers.sound_text import describe_sound_text
from transforms.encoders.transformers.waveform import describe_waveform


def describe(config: EncoderConfig, source: ModelSource) -> Model:
    """Reads the settings of a folder; see `transforms.encoders.families`.

    Raises:
        ConfigurationError: if the folder is incomplete or of another architecture, or the configuration sets what such
            a model does not have.
        EncoderError: if the weights are not the pinned ones.
    """
    refuse_text_settings(config)
    files = ModelFolder.read(source.folder())
    if files.model_type in WITHOUT_PROJECTION:
        refuse_without_projection(files, WITHOUT_PROJECTION[files.model_type])
    if files.model_type not in ARCHITECTURES:
        raise ConfigurationError(
            f"encoder.model: {files.folder / 'config.json'} has model_type {files.settings.get('model_type')!r}, which "
            "the family transformers does not embed",
            f"name a model of one of these architectures: {', '.join(sorted(ARCHITECTURES))}",
        )
    if files.model_type in BACKBONES:
        return describe_backbone(config, source, files)
    if files.model_type in IMAGE_TEXT:
        return describe_image_text(config, source, files)
    if files.model_type in PATCHES:
        return describe_patches(config, source, files)
    if files.model_type in SOUND_TEXT:
        return describe_sound_text(config, source, files)
    if files.model_type in FILM_TEXT:
        return describe_film_text(config, source, files)
    if files.model_type in FILM_BACKBONES:
        return describe_film_backbone(config, source, files)
    return describe_waveform(config, source, files)
