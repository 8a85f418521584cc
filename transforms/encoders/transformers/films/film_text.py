"""Films and texts in one space: X-CLIP.

The library's own classifier changes the vector of each text by the film that it is compared with. Vectors that are
stored and searched can't depend on each other, so a text's vector here is that of the tower of texts alone.

Ni et al., Expanding Language-Image Pretrained Models for General Video Recognition: https://arxiv.org/abs/2208.02816
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from schemas.config import Config, EncoderConfig
from schemas.modality import Modality
from transforms.chunk.base import Chunker
from transforms.chunk.text import TextChunker
from transforms.encoders.media.film.film_encoder import FilmEncoder
from transforms.encoders.media.film.film_model import FilmModel
from transforms.encoders.media.film.sampling import Sampling
from transforms.encoders.media.two_towers import TwoTowerEncoder
from transforms.encoders.model_files import lowered, weights_digest
from transforms.encoders.model_source import ModelSource, Prompts
from transforms.encoders.transformers.architectures import FILM_TEXT, Padding, projected_dimensions
from transforms.encoders.transformers.films.clip_frames import PACKAGES, frame_preparation, segments_at_once
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.pixels import RESAMPLING
from transforms.encoders.transformers.text_tower import ReadsTexts, text_tower, tokenizer_facts
from transforms.support.extras import version_of

FRAMES = 8
"""Of a segment, where config.json does not say it."""


@dataclass(frozen=True)
class FilmTextModel(ReadsTexts, FilmModel):
    """A folder with two towers; a corpus is of films or of texts, and so are queries."""

    folder: Path

    modalities: ClassVar = frozenset({Modality.VIDEO, Modality.TEXT})

    def chunker(self, config: Config, modality: Modality) -> Chunker:
        if modality is Modality.TEXT:
            return TextChunker(config, self)
        return super().chunker(config, modality)


def describe_film_text(config: EncoderConfig, source: ModelSource, files: ModelFolder) -> FilmTextModel:
    """The model in a folder.

    Raises:
        ConfigurationError: if a file does not exist.
        EncoderError: if the weights are not the pinned ones.
    """
    towers = FILM_TEXT[files.model_type]
    own = projected_dimensions(files.model_type, files.settings)
    pictures, texts = (files.settings.get(key) or {} for key in ("vision_config", "text_config"))
    tokens = int(texts.get("max_position_embeddings") or towers.tokens)
    sampling = Sampling(int(pictures.get("num_frames") or FRAMES))
    source.compare(own, tokens, Prompts())
    facts = {
        "family": "transformers",
        "weights": weights_digest([files.folder], source.weights_sha256),
        "architecture": files.architecture,
        "image": files.processing("image_processor"),
        "resampling": RESAMPLING,
        "film": sampling.facts,
        "tokenizer": tokenizer_facts(files.folder),
        "padding": str(towers.padding),
        "max_tokens": tokens,
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    load = partial(_load, config, files, facts, sampling)
    return FilmTextModel(config, facts, load, PACKAGES, sampling, files.folder)


def _load(config: EncoderConfig, files: ModelFolder, facts: dict[str, Any], sampling: Sampling) -> TwoTowerEncoder:
    from transforms.encoders.engines.torch.forward import forward

    prepare = frame_preparation(files.folder)
    model = files.load()
    films = forward(model, config, _of_films, transformers=version_of("transformers") or "")
    texts = forward(model, config, _of_texts)
    media = FilmEncoder(
        facts["dimensions"],
        facts["normalize"],
        segments_at_once(films.batch, sampling),
        films.described,
        sampling,
        prepare,
        lambda segments: films.run(np.stack(segments)),
    )
    return TwoTowerEncoder(media, text_tower(files.folder, facts["max_tokens"], Padding(facts["padding"]), texts.run))


def _of_films(model: Any, films: Any) -> Any:
    return model.get_video_features(pixel_values=films).pooler_output


def _of_texts(model: Any, tokens: Any, mask: Any = None) -> Any:
    return model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
