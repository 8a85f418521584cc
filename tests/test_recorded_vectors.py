"""Vectors against recorded ones, so that an upgrade of a library which changes them is seen.

    python tests/test_recorded_vectors.py    records them again, where the change is wanted

A space id stays the same through an upgrade, and vectors of two releases of a library are in one collection: so they
have to stay the same, within the tolerance.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
from models import KINDS, TEXTS, save_model

from schemas.config import EncoderConfig
from transforms.encoders import resolve, text_inputs

RECORDED = Path(__file__).parent / "data" / "recorded_vectors.json"
LEADING = 8
"""Numbers of each vector."""
ABSOLUTE = 2e-4
"""Of a number. torch and OpenVINO differ by up to 2e-7 on these texts in float32; another prompt by 9e-3 or more."""

PROMPTS = {"query": "find: ", "document": "text: "}
VOCABULARY = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase), "word", "sea", ".", ","]

MODELS: dict[str, Callable[[Path], EncoderConfig]] = {
    "all-MiniLM-L6-v2": lambda _: EncoderConfig(precision="float32"),
    "fake": lambda _: EncoderConfig(model="fake", dimensions=32),
    **{
        kind: lambda folder, kind=kind: EncoderConfig(  # type: ignore[misc]
            model=str(save_model(folder, kind, prompts=PROMPTS, vocabulary=VOCABULARY)), engine="torch"
        )
        for kind in KINDS
    },
}


def leading(config: EncoderConfig) -> dict[str, list[list[float]]]:
    """The first numbers of the vector of each text, as an item and as a query."""
    encoder = resolve(config).load()
    found = {}
    for use in ("item", "query"):
        vectors = encoder.encode(text_inputs(TEXTS), query=use == "query").matrix
        found[use] = [[round(float(number), 6) for number in vector[:LEADING]] for vector in vectors]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_those_that_were_recorded(name: str, tmp_path: Path) -> None:
    recorded: dict[str, Any] = json.loads(RECORDED.read_text())[name]
    found = leading(MODELS[name](tmp_path))
    for use, vectors in recorded.items():
        np.testing.assert_allclose(found[use], vectors, atol=ABSOLUTE, rtol=0, err_msg=f"{name}, {use}")


def main() -> None:
    """Records the vectors of each model."""
    found = {}
    for name, config in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = leading(config(Path(folder)))
    rows = json.dumps(found, indent=1).replace(",\n    ", ", ").replace("[\n    ", "[").replace("\n   ]", "]")
    RECORDED.write_text(rows + "\n")


if __name__ == "__main__":
    main()
