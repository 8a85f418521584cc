"""Recordings by the encoder of a Whisper model: the mean of its frames that are sound, not padding.

A recording of at most 30 s is padded with silence to 30 s, as the model was trained. The encoder makes a frame of each
320 samples. The mean over the padding too would be nearly the same for all short recordings.

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision: https://arxiv.org/abs/2212.04356
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from schemas.errors import ConfigurationError, EncoderError
from transforms.encoders.engines.torch.torchvision_operators import make_importable
from transforms.encoders.media.media_encoder import Prepared
from transforms.encoders.media.media_model import refuse_text_settings
from transforms.encoders.media.sound_encoder import Hearing, SoundEncoder
from transforms.encoders.media.sound_model import SoundModel
from transforms.encoders.model_files import lowered, read_json, weights_digest
from transforms.encoders.model_source import ModelSource
from transforms.support.extras import version_of

Floats = NDArray[np.float32]

PACKAGES = ("torch", "transformers")
_ARCHITECTURE = (
    *("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins"),
    *("max_source_positions", "activation_function", "scale_embedding"),
)
_FEATURES = {"sampling_rate": 16_000, "hop_length": 160, "chunk_length": 30, "n_fft": 400, "dither": 0.0}
"""Settings of the features, and what they are where preprocessor_config.json does not say."""
_STRIDE = 2
"""Frames of the features for each frame of the encoder."""
_PREFIXES = ("model.encoder.", "encoder.")


def describe(config: EncoderConfig, source: ModelSource) -> SoundModel:
    """Reads the settings of a folder that transformers wrote; see `transforms.encoders.families`.

    Raises:
        ConfigurationError: if the folder holds no Whisper model, or the configuration asks for what it does not have.
        EncoderError: if the weights are not the pinned ones.
    """
    refuse_text_settings(config)
    folder = source.folder()
    settings = read_json(folder / "config.json")
    missing = [key for key in _ARCHITECTURE[:6] if not isinstance(settings.get(key), int)]
    if settings.get("model_type") != "whisper" or missing:
        why = f"that says {', '.join(missing)}" if settings.get("model_type") == "whisper" else "of model_type whisper"
        raise ConfigurationError(
            f"encoder.model: {folder} has no config.json {why}",
            "name a folder or hub id of a Whisper model that transformers' save_pretrained wrote",
        )
    features = _features_of(folder, settings)
    own = int(settings["d_model"])
    source.compare_dimensions(own)
    rate, hop = features["sampling_rate"], features["hop_length"]
    facts = {
        "family": "whisper",
        "weights": source.unpacked_weights or weights_digest([folder], source.weights_sha256),
        "architecture": {key: settings[key] for key in _ARCHITECTURE if key in settings},
        "features": features,
        "channels": "mean",
        "rate": rate,
        "window": features["chunk_length"],
        "pooling": "mean of real frames",
        "dimensions": lowered(config, "dimensions", own),
        "normalize": config.normalize,
    }
    hearing = Hearing(rate, hop * _STRIDE / rate, float(features["chunk_length"]))
    return SoundModel(config, facts, partial(_load, config, folder, facts, hearing), PACKAGES, hearing)


def _features_of(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the features.

    Raises:
        ConfigurationError: if they do not fit the model.
    """
    found = read_json(folder / "preprocessor_config.json")
    features = {key: found.get(key, value) for key, value in _FEATURES.items()}
    features["feature_size"] = found.get("feature_size", settings["num_mel_bins"])
    samples = features["sampling_rate"] * features["chunk_length"]
    frames = samples // features["hop_length"]
    fits = features["feature_size"] == settings["num_mel_bins"]
    if not fits or frames != settings["max_source_positions"] * _STRIDE or features["dither"]:
        raise ConfigurationError(
            f"encoder.model: {folder / 'preprocessor_config.json'} gives {frames} frames of {features['feature_size']} "
            f"numbers, dither {features['dither']:g}; the model takes "
            f"{settings['max_source_positions'] * _STRIDE} of {settings['num_mel_bins']}, without dither",
            "fetch the model again",
        )
    return features


def _load(config: EncoderConfig, folder: Path, facts: dict[str, Any], hearing: Hearing) -> SoundEncoder:
    make_importable()
    from transformers import WhisperFeatureExtractor

    from transforms.encoders.engines.torch.forward import forward

    features = dict(facts["features"])
    extractor = WhisperFeatureExtractor(**features)
    samples = features["hop_length"] * _STRIDE

    def prepare(sound: Floats) -> Prepared:
        made = extractor(sound, sampling_rate=hearing.rate, return_tensors="np").input_features[0]
        return Prepared(np.ascontiguousarray(made, np.float32), frames=-(-len(sound) // samples))

    ready = forward(load(folder), config, mean_of_real, transformers=version_of("transformers") or "")

    def embed(group: list[Prepared]) -> Floats:
        return ready.run(np.stack([one.array for one in group]), np.array([one.frames for one in group], np.int64))

    return SoundEncoder(facts["dimensions"], facts["normalize"], ready.batch, ready.described, hearing, prepare, embed)


def load(folder: Path) -> Any:
    """The encoder in a folder, in float32, without its decoder.

    Raises:
        EncoderError: if the files are damaged.
    """
    from safetensors import safe_open

    make_importable()
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    try:
        tensors = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as stored:
                for name in stored.keys():  # noqa: SIM118 (not a dictionary)
                    prefix = next((one for one in _PREFIXES if name.startswith(one)), None)
                    if prefix is not None:
                        tensors[name.removeprefix(prefix)] = stored.get_tensor(name).float()
        encoder = WhisperEncoder(WhisperConfig(**read_json(folder / "config.json")))
        encoder.load_state_dict(tensors)
    except Exception as error:  # the libraries raise errors of many kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error
    return encoder


def mean_of_real(model: Any, features: Any, frames: Any) -> Any:
    """float32[n, dimensions]: the mean of the first so many frames of each.

    Args:
        features: [n, mels, frames].
        frames: int64[n], of the encoder.
    """
    import torch

    hidden = model(features).last_hidden_state.float()
    real = torch.arange(hidden.shape[1], device=hidden.device)[None, :] < frames[:, None]
    return (hidden * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
