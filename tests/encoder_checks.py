"""What tests of several families of encoders check, and the models that they save once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transforms.encoders import Encoder

Floats = np.ndarray[Any, np.dtype[np.float32]]
Saved = Callable[[str], Path]


def made_once(tmp_path_factory: pytest.TempPathFactory, save: Callable[[Path, str], Path]) -> Saved:
    """Gives the folder of a kind of model, which `save` makes in an empty folder when it is first wanted."""
    made: dict[str, Path] = {}

    def find_or_make(kind: str) -> Path:
        if kind not in made:
            made[kind] = save(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return find_or_make


def scaled(vectors: Any) -> Floats:
    """A tensor's vectors, scaled to length 1."""
    found: Floats = vectors.numpy()
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def check_batches(encoder: Encoder, make: Callable[[Sequence[Any]], Any], values: Sequence[Any]) -> Floats:
    """The vectors of some values, which are the same alone, together, and in another order.

    Args:
        make: `text_inputs` or `media_inputs`.
    """
    together: Floats = encoder.encode(make(values)).matrix
    alone = np.concatenate([encoder.encode(make([value])).matrix for value in values])
    order = np.random.default_rng(1).permutation(len(values))
    shuffled = encoder.encode(make([values[place] for place in order])).matrix
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together[order] - shuffled).max() < 1e-5
    return together
