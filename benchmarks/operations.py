"""How much arithmetic a model's matrices are for a text, whatever engine does it."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Tables that are looked up, and what serves other tasks than embedding.
_LEFT_OUT = ("embed", "pooler", "lm_head", "cls.", "bias")


class Operations(NamedTuple):
    """Floating point operations of a transformer's matrices, a multiplication and an addition each being one.

    As model FLOP utilisation counts them (Chowdhery et al., PaLM: Scaling Language Modeling with Pathways, 2022,
    appendix B), the way forward alone.

    Attributes:
        token: of the weight matrices, for each token.
        pair: of attention's two products in all layers, for each pair of tokens of a text.
    """

    token: float
    pair: float

    @classmethod
    def of(cls, folder: Path) -> Operations:
        """Reads the sizes of a model's matrices, without their numbers.

        Args:
            folder: with config.json and *.safetensors.

        Raises:
            SafetensorError: if a file is damaged.
        """
        from safetensors import safe_open

        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        numbers = 0
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "np") as stored:
                for name in stored.keys():  # noqa: SIM118 (no dict)
                    shape = stored.get_slice(name).get_shape()
                    if len(shape) == 2 and not any(part in name for part in _LEFT_OUT):
                        numbers += prod(shape)
        hidden, layers = settings.get("hidden_size") or settings.get("dim"), settings.get("num_hidden_layers")
        layers = layers or settings.get("n_layers")  # as DistilBERT names it
        return cls(2.0 * numbers, 4.0 * int(hidden or 0) * int(layers or 0))

    def total(self, lengths: NDArray[np.int64]) -> float:
        """Of texts with so many tokens (int64[n])."""
        tokens = lengths.astype(np.float64)
        return float(self.token * tokens.sum() + self.pair * (tokens * tokens).sum())
