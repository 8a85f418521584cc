"""Films by a model without its last layer: VideoMAE, TimeSformer and ViViT.

Tong et al., VideoMAE: https://arxiv.org/abs/2203.12602
Bertasius et al., Is Space-Time Attention All You Need for Video Understanding?: https://arxiv.org/abs/2102.05095
Arnab et al., ViViT: https://arxiv.org/abs/2103.15691
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders.media.film.film_encoder import FilmEncoder
from transforms.encoders.media.film.film_model import FilmModel
from transforms.encoders.media.film.sampling import Sampling
from transforms.encoders.model_files import lowered, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.encoders.transformers.architectures import FILM_BACKBONES, Pooling
from transforms.encoders.transformers.films.clip_frames import PACKAGES, frame_preparation, segments_at_once
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.encoders.transformers.pixels import RESAMPLING
from transforms.support.extras import version_of

Floats = NDArray[np.float32]


def describe_film_backbone(config: EncoderConfig, source: ModelSource, files: ModelFolder) -> FilmModel:
    """The model in a folder.

    Raises:
        ConfigurationError: if a file does not exist, or does not say the model's dimensions.
        EncoderError: if the weights are not the pinned ones.
    """
    backbone = FILM_BACKBONES[files.model_type]
    own = files.settings.get("hidden_size")
    if not isinstance(own, int):
        raise ConfigurationError(
            f"encoder.model: {files.folder / 'config.json'} does not say hidden_size",
            "save the model again with save_pretrained",
        )
    sampling = Sampling(int(files.settings.get("num_frames") or backbone.frames))
    # VideoMAE's classifier reads the mean, unless its settings say the first token.
    is_mean = backbone.pooling is Pooling.MEAN and files.settings.get("use_mean_pooling", True)
    source.compare_dimensions(own)
    facts = {
        "family": "transformers",
        "weights": weights_digest([files.folder], source.weights_sha256),
        "architecture": files.architecture,
        "pooling": str(Pooling.MEAN if is_mean else Pooling.FIRST),
        "image": files.processing("image_processor"),
        "resampling": RESAMPLING,
        "film": sampling.facts,
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    return FilmModel(config, facts, partial(_load, config, files, facts, sampling), PACKAGES, sampling)


def _load(config: EncoderConfig, files: ModelFolder, facts: dict[str, Any], sampling: Sampling) -> FilmEncoder:
    from transforms.encoders.engines.torch.forward import forward

    prepare = frame_preparation(files.folder)
    call = partial(_pooled, Pooling(facts["pooling"]))
    ready = forward(files.load("pooler."), config, call, transformers=version_of("transformers") or "")
    return FilmEncoder(
        facts["dimensions"],
        facts["normalize"],
        segments_at_once(ready.batch, sampling),
        ready.described,
        sampling,
        prepare,
        lambda segments: ready.run(np.stack(segments)),
    )


def _pooled(pooling: Pooling, model: Any, films: Any) -> Any:
    hidden = model(pixel_values=films).last_hidden_state
    return hidden.mean(dim=1) if pooling is Pooling.MEAN else hidden[:, 0]
