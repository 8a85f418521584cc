"""Who speaks: vectors of voices by the speaker encoder of the package Resemblyzer, whatever is said.

A recording that is quieter than -30 dBFS is made that loud. Windows of 1.6 s of its mel spectrogram, 77 frames apart,
go through an LSTM; the vector is the mean of theirs. Silences are not cut out, as the package's own preprocessing does.

Wan et al., Generalized End-to-End Loss for Speaker Verification: https://arxiv.org/abs/1710.10467
https://github.com/resemble-ai/Resemblyzer
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.config import EncoderConfig
from schemas.errors import EncoderError
from transforms.encoders.media.content import RefusedError
from transforms.encoders.media.media_encoder import Prepared
from transforms.encoders.media.media_model import refuse_text_settings
from transforms.encoders.media.sound_encoder import Hearing, SoundEncoder
from transforms.encoders.media.sound_model import SoundModel
from transforms.encoders.model_files import lowered, weights_digest
from transforms.encoders.model_source import ModelSource

Floats = NDArray[np.float32]

DIMENSIONS = 256
_RATE, _HOP, _WINDOW, _MELS = 16_000, 160, 400, 40
_FRAMES, _STEP = 160, 77
"""Of a window of the spectrogram, and from one to the next: 1.3 windows a second."""
_COVERAGE = 0.75
"""The last window counts if so much of it is sound."""
_LOUDNESS = -30.0
_HEARING = Hearing(_RATE, 0.025, 600.0)
_FEATURES = {
    "mels": _MELS,
    "n_fft": _WINDOW,
    "hop_length": _HOP,
    "frames": _FRAMES,
    "step": _STEP,
    "coverage": _COVERAGE,
    "loudness_at_least": _LOUDNESS,
}


def describe(config: EncoderConfig, source: ModelSource) -> SoundModel:
    """The model of the catalogue, or a folder with its weights; see `transforms.encoders.families`.

    Raises:
        ConfigurationError: if the folder holds no weights, or the configuration asks for what it does not have.
        EncoderError: if the weights are not the pinned ones.
    """
    refuse_text_settings(config)
    folder = source.folder()
    source.compare_dimensions(DIMENSIONS)
    facts = {
        "family": "resemblyzer",
        "weights": source.unpacked_weights or weights_digest([folder], source.weights_sha256),
        "architecture": "LSTM of 3 layers of 256, linear, ReLU",
        "features": _FEATURES,
        "channels": "mean",
        "rate": _RATE,
        "pooling": "mean of windows",
        "dimensions": lowered(config, "dimensions", DIMENSIONS),
        "normalize": config.normalize,
    }
    return SoundModel(config, facts, partial(_load, config, folder, facts), ("torch",), _HEARING)


def _load(config: EncoderConfig, folder: Path, facts: dict[str, Any]) -> SoundEncoder:
    from transforms.encoders.engines.torch.forward import forward

    ready = forward(load(folder), config, _voices)

    def embed(group: list[Prepared]) -> Floats:
        every = np.concatenate([one.array for one in group])
        pieces = [ready.run(every[start : start + ready.batch]) for start in range(0, len(every), ready.batch)]
        borders = np.cumsum([len(one.array) for one in group])[:-1]
        found: Floats = np.stack([own.mean(axis=0) for own in np.split(np.concatenate(pieces), borders)])
        return found

    return SoundEncoder(facts["dimensions"], facts["normalize"], ready.batch, ready.described, _HEARING, prepare, embed)


def load(folder: Path) -> Any:
    """The model in a folder, in float32.

    Raises:
        EncoderError: if the files are damaged.
    """
    from safetensors.torch import load_file
    from torch import nn

    model = nn.ModuleDict(
        {"lstm": nn.LSTM(_MELS, DIMENSIONS, 3, batch_first=True), "linear": nn.Linear(DIMENSIONS, DIMENSIONS)}
    )
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except Exception as error:  # the libraries raise errors of many kinds for damaged files
        raise EncoderError(f"can't load the model in {folder}: {error}", "check the folder's files") from error
    return model


def _voices(model: Any, windows: Any) -> Any:
    _, (hidden, _) = model["lstm"](windows)
    found = model["linear"](hidden[-1]).relu()
    return found / found.norm(dim=1, keepdim=True)


def prepare(samples: Floats) -> Prepared:
    """Samples, float32[n], as windows of a mel spectrogram, float32[windows, 160, 40].

    Raises:
        RefusedError: `SilentSound`.
    """
    loudness = np.sqrt(np.mean(samples.astype(np.float64) ** 2))
    if loudness == 0:
        raise RefusedError("SilentSound", "All samples are 0, and the loudness of silence can't be raised")
    samples = samples * np.float32(max(1.0, 10 ** (_LOUDNESS / 20) / loudness))
    frames = -(-(len(samples) + 1) // _HOP)
    starts = list(range(0, max(1, frames - _FRAMES + _STEP + 1), _STEP))
    if len(starts) > 1 and (len(samples) - starts[-1] * _HOP) / (_FRAMES * _HOP) < _COVERAGE:
        starts = starts[:-1]
    missing = max(0, (starts[-1] + _FRAMES) * _HOP - len(samples))
    spectrogram = mel_spectrogram(np.pad(samples, (0, missing)))
    return Prepared(np.stack([spectrogram[start : start + _FRAMES] for start in starts]))


def mel_spectrogram(samples: Floats) -> Floats:
    """float32[frames, 40], as librosa.feature.melspectrogram gives it: power, Slaney's scale and norm, zeros around."""
    import torch

    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(
        torch.from_numpy(samples), _WINDOW, _HOP, window=window, pad_mode="constant", return_complex=True
    )
    found: Floats = (torch.from_numpy(_filters()) @ spectrum.abs().square()).T.contiguous().numpy()
    return found


@cache
def _filters() -> Floats:
    """float32[40, 201]: triangles, evenly spaced on Slaney's scale: linear below 1 kHz and logarithmic above."""
    knee, per_mel, factor = 1000.0, 200 / 3, np.log(6.4) / 27
    top = knee / per_mel + np.log(_RATE / 2 / knee) / factor
    mels = np.linspace(0, top, _MELS + 2)
    above = knee * np.exp(factor * (mels - knee / per_mel))
    borders = np.where(mels < knee / per_mel, mels * per_mel, above)
    far = borders[:, None] - np.linspace(0, _RATE / 2, _WINDOW // 2 + 1)[None, :]
    wide = np.diff(borders)[:, None]
    triangles = np.maximum(0, np.minimum(-far[:-2] / wide[:-1], far[2:] / wide[1:]))
    found: Floats = (triangles * (2 / (borders[2:] - borders[:-2]))[:, None]).astype(np.float32)
    return found
