"""The contents of a model's files, in the form that the kernels need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.engines.amx.library import Shape
from transforms.encoders.engines.torch.packed import POSITIONS_AFTER_PADDING
from transforms.encoders.engines.transformer_files import TransformerFiles

STEP = 32
"""Sizes must be multiples of this."""
POOLINGS = {"mean": 0, "cls": 1}
_MODULES = ("Transformer", "Pooling", "Normalize")
_FIRST = ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm")
_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


class Weights(NamedTuple):
    """A model for the kernels.

    Attributes:
        shape: the parameters of the kernels; the caller sets `numbers`.
        tensors: float32, in the order of `vecbeam_new`; word, position and kind embeddings are the first three.
        normalize: whether the model itself scales its vectors to length 1.
    """

    shape: Shape
    tensors: list[NDArray[np.float32]]
    normalize: bool


def unsupported(model: TransformerFiles) -> str:
    """What the kernels don't support in a model, by its settings; "" if they support all of it."""
    settings = json.loads((Path(model.transformer_folder) / "config.json").read_text(encoding="utf-8"))
    kind = settings.get("model_type")
    if kind != "bert" and kind not in POSITIONS_AFTER_PADDING:
        return f"its model_type is {kind}"
    if settings.get("hidden_act", "gelu") != "gelu":
        return f"its hidden_act is {settings['hidden_act']}"
    if settings.get("position_embedding_type", "absolute") != "absolute" or settings.get("is_decoder"):
        return "its positions are relative, or it is a decoder"
    hidden, heads = int(settings["hidden_size"]), int(settings["num_attention_heads"])
    sizes = (hidden, hidden // heads, int(settings["intermediate_size"]))
    if any(size % STEP for size in sizes):
        return f"its sizes {sizes} (hidden, of a head, intermediate) are not multiples of {STEP}"
    others = [name for name in model.modules if name not in _MODULES]
    if others or model.pooling not in POOLINGS:
        return f"its modules: {', '.join([model.pooling, *others])}"
    return ""


def read(model: TransformerFiles) -> Weights:
    """Reads a supported model.

    Raises:
        ValueError: if the weights are not what the settings say, or are in several files.
    """
    folder = Path(model.transformer_folder)
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    hidden, between = int(settings["hidden_size"]), int(settings["intermediate_size"])
    after_padding = settings["model_type"] in POSITIONS_AFTER_PADDING
    shape = Shape(
        hidden=hidden,
        heads=int(settings["num_attention_heads"]),
        layers=int(settings["num_hidden_layers"]),
        between=between,
        first_position=model.padding_id + 1 if after_padding else 0,
        epsilon=float(settings.get("layer_norm_eps", 1e-12)),
        pooling=POOLINGS[model.pooling],
    )
    expected: dict[str, tuple[int | None, ...]] = {f"embeddings.{name}.weight": (None, hidden) for name in _FIRST[:3]}
    expected |= {f"embeddings.{_FIRST[3]}.{part}": (hidden,) for part in ("weight", "bias")}
    for number in range(shape.layers):
        for name in _LAYER:
            rows = between if name == "intermediate.dense" else hidden
            columns = between if name == "output.dense" else hidden
            whole = f"encoder.layer.{number}.{name}"
            expected[f"{whole}.weight"] = (hidden,) if name.endswith("LayerNorm") else (rows, columns)
            expected[f"{whole}.bias"] = (rows,)
    tensors = _tensors(folder, expected)
    if model.max_tokens + shape.first_position > len(tensors[1]):
        raise ValueError(f"it has {len(tensors[1])} positions, too few for {model.max_tokens} tokens")
    return Weights(shape, tensors, "Normalize" in model.modules)


def _tensors(folder: Path, expected: dict[str, tuple[int | None, ...]]) -> list[NDArray[np.float32]]:
    from safetensors import SafetensorError, safe_open

    files = list(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(f"its weights lie in {len(files)} files")
    try:
        with safe_open(files[0], "np") as stored:
            first = next(iter(expected))
            before = [name.removesuffix(first) for name in stored.keys() if name.endswith(first)]  # noqa: SIM118 (no dict)
            if len(before) != 1:
                raise ValueError(f"its weights hold {len(before)} tensors named {first}")
            return [_fitting(stored.get_tensor(before[0] + name), name, shape) for name, shape in expected.items()]
    except (SafetensorError, TypeError) as error:  # damaged, without a tensor, or of a type that numpy does not know
        raise ValueError(f"{files[0]} can't be read: {error}") from error


def _fitting(tensor: NDArray[Any], name: str, shape: tuple[int | None, ...]) -> NDArray[np.float32]:
    fits = len(tensor.shape) == len(shape)
    if not fits or any(size not in (None, own) for own, size in zip(tensor.shape, shape, strict=True)):
        raise ValueError(f"its tensor {name} has shape {tensor.shape}, not {shape}")
    return np.ascontiguousarray(tensor, np.float32)
