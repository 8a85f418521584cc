"""Recordings and texts in one space: CLAP.

The library repeats a recording up to the model's 10 s, and crops a longer one at random: windows are never longer.

Wu et al., Large-scale Contrastive Language-Audio Pretraining: https://arxiv.org/abs/2211.06687
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from schemas.config import Config, EncoderConfig
from schemas.errors import ConfigurationError
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.text import TextChunker
from transforms.encoders.media.media_encoder import Prepared
from transforms.encoders.media.sound_encoder import Hearing, SoundEncoder
from transforms.encoders.media.sound_model import SoundModel
from transforms.encoders.media.two_towers import TwoTowerEncoder
from transforms.encoders.model_files import lowered, weights_digest
from transforms.encoders.model_source import ModelSource, Prompts
from transforms.encoders.transformers.architectures import SOUND_TEXT, Padding, projected_dimensions
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.text_tower import ReadsTexts, text_tower, tokenizer_facts
from transforms.support.extras import version_of

Floats = NDArray[np.float32]

PACKAGES = ("torch", "transformers")
_FEATURES = {"sampling_rate": 48_000, "hop_length": 480, "max_length_s": 10, "feature_size": 64}
"""Settings of the features, and what they are where preprocessor_config.json does not say."""
_MELS = 64


@dataclass(frozen=True)
class SoundTextModel(ReadsTexts, SoundModel):
    """A folder with two towers; a corpus is of recordings or of texts, and so are queries."""

    folder: Path

    modalities: ClassVar = frozenset({Modality.AUDIO, Modality.TEXT})

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        return TextChunker(config, self) if modality is Modality.TEXT else super().chunker(config, modality)


def describe_sound_text(config: EncoderConfig, source: ModelSource, files: ModelFolder) -> SoundTextModel:
    """The model in a folder.

    Raises:
        ConfigurationError: if a file does not exist, or the features do not fit the model.
        EncoderError: if the weights are not the pinned ones.
    """
    towers = SOUND_TEXT[files.model_type]
    features = {**_FEATURES, **files.processing("feature_extractor")}
    bands = (files.settings.get("audio_config") or {}).get("num_mel_bins", _MELS)
    if features["feature_size"] != bands:
        raise ConfigurationError(
            f"encoder.model: {files.folder / 'preprocessor_config.json'} makes {features['feature_size']} mel bands, "
            f"and the model takes {bands}",
            "fetch the model again",
        )
    own, tokens = projected_dimensions(files.model_type, files.settings), _tokens(files.settings, towers.tokens)
    source.compare(own, tokens, Prompts())
    rate, longest = int(features["sampling_rate"]), float(features["max_length_s"])
    facts = {
        "family": "transformers",
        "weights": weights_digest([files.folder], source.weights_sha256),
        "architecture": files.architecture,
        "features": features,
        "channels": "mean",
        "rate": rate,
        "window": longest,
        "tokenizer": tokenizer_facts(files.folder),
        "padding": str(towers.padding),
        "max_tokens": tokens,
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    hearing = Hearing(rate, features["hop_length"] / rate, longest)
    return SoundTextModel(config, facts, partial(_load, config, files, facts, hearing), PACKAGES, hearing, files.folder)


def _tokens(settings: Mapping[str, Any], known: int) -> int:
    """The length limit of the texts; their positions begin after that of padding."""
    texts = settings.get("text_config") or {}
    positions = texts.get("max_position_embeddings")
    return int(positions) - int(texts.get("pad_token_id", 1)) - 1 if positions else known


def _load(config: EncoderConfig, files: ModelFolder, facts: dict[str, Any], hearing: Hearing) -> TwoTowerEncoder:
    from transforms.encoders.engines.torch.forward import forward

    extractor = files.feature_extractor("ClapFeatureExtractor")
    model = files.load()
    sounds = forward(model, config, _of_sounds, transformers=version_of("transformers") or "")
    texts = forward(model, config, _of_texts)

    def prepare(sound: Floats) -> Prepared:
        made = extractor(sound, sampling_rate=hearing.rate, return_tensors="np").input_features[0]
        return Prepared(np.ascontiguousarray(made, np.float32))

    def embed(group: list[Prepared]) -> Floats:
        return sounds.run(np.stack([one.array for one in group]))

    media = SoundEncoder(
        facts["dimensions"], facts["normalize"], sounds.batch, sounds.described, hearing, prepare, embed
    )
    return TwoTowerEncoder(media, text_tower(files.folder, facts["max_tokens"], Padding(facts["padding"]), texts.run))


def _of_sounds(model: Any, features: Any) -> Any:
    import torch

    # None is longer than the model takes. The library would mark one of a batch at random, for models that fuse.
    longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
    return model.get_audio_features(input_features=features, is_longer=longer).pooler_output


def _of_texts(model: Any, tokens: Any, mask: Any = None) -> Any:
    return model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
