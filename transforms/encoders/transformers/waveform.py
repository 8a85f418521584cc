"""Recordings by the models whose input is the samples themselves: Wav2Vec2, HuBERT, WavLM and others.

A recording's vector is the mean of its frames of the last hidden layer.

Baevski et al., wav2vec 2.0: https://arxiv.org/abs/2006.11477
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError
from transforms.encoders.media.media_encoder import Prepared
from transforms.encoders.media.sound_encoder import Hearing, SoundEncoder
from transforms.encoders.media.sound_model import SoundModel
from transforms.encoders.model_files import lowered, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.encoders.transformers.model_folder import ModelFolder
from transforms.support.extras import version_of

Floats = NDArray[np.float32]

PACKAGES = ("torch", "transformers")
LONGEST = 30.0
"""Seconds of a window: attention takes memory by the square of a recording's length."""
_EXTRACTOR = "Wav2Vec2FeatureExtractor"
_RATE = 16_000


def describe_waveform(config: EncoderConfig, source: ModelSource, files: ModelFolder) -> SoundModel:
    """The model in a folder.

    Raises:
        ConfigurationError: if a file does not exist, or does not say what the model takes.
        EncoderError: if the weights are not the pinned ones.
    """
    features = files.processing("feature_extractor")
    kind = features.get("feature_extractor_type", _EXTRACTOR)
    sizes, kernels, strides = (files.settings.get(key) for key in ("hidden_size", "conv_kernel", "conv_stride"))
    if kind != _EXTRACTOR or not (sizes and kernels and strides):
        why = f"a {kind}" if kind != _EXTRACTOR else "a config.json without hidden_size, conv_kernel and conv_stride"
        raise ConfigurationError(
            f"encoder.model: {files.folder} has {why}, and a model of type {files.model_type} takes samples by a "
            f"{_EXTRACTOR}",
            "save the model and its feature extractor again with save_pretrained",
        )
    own, rate = int(sizes), int(features.get("sampling_rate", _RATE))
    source.compare_dimensions(own)
    facts = {
        "family": "transformers",
        "weights": weights_digest([files.folder], source.weights_sha256),
        "architecture": files.architecture,
        "features": features,
        "channels": "mean",
        "rate": rate,
        "padding": "none",
        "pooling": "mean of frames",
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    hearing = Hearing(rate, samples_of_a_frame(kernels, strides) / rate, LONGEST)
    return SoundModel(config, facts, partial(_load, config, files, facts, hearing), PACKAGES, hearing)


def samples_of_a_frame(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """How many samples the first frame of a stack of convolutions sees.

    >>> samples_of_a_frame([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    samples, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        samples += (kernel - 1) * step
        step *= stride
    return samples


def _load(config: EncoderConfig, files: ModelFolder, facts: dict[str, Any], hearing: Hearing) -> SoundEncoder:
    from transforms.encoders.engines.torch.forward import forward

    extractor = files.feature_extractor(_EXTRACTOR)
    ready = forward(files.load(), config, _mean, transformers=version_of("transformers") or "")

    def prepare(sound: Floats) -> Prepared:
        made = extractor(sound, sampling_rate=hearing.rate, return_tensors="np").input_values[0]
        return Prepared(np.ascontiguousarray(made, np.float32))

    def embed(group: list[Prepared]) -> Floats:
        # Only recordings of one length together: group norms count padding, even where attention is masked.
        lengths = np.array([len(one.array) for one in group])
        vectors = np.empty((len(group), int(files.settings["hidden_size"])), np.float32)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            vectors[rows] = ready.run(np.stack([group[row].array for row in rows]))
        return vectors

    return SoundEncoder(facts["dimensions"], facts["normalize"], ready.batch, ready.described, hearing, prepare, embed)


def _mean(model: Any, samples: Any) -> Any:
    return model(samples).last_hidden_state.float().mean(dim=1)
