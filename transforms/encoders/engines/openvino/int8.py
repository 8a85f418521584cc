"""int8 by post-training quantization (NNCF), with ranges from a sample of texts, and what it costs on that sample."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.encoders.engines import processor
from transforms.encoders.engines.openvino.runtime import import_nncf, import_openvino
from transforms.encoders.engines.tokens import TokenTable

NEIGHBOURS = 10


def quantize(path: Path, sample: TokenTable) -> Any:
    """An int8 openvino.Model of a float32 one; the same sample gives the same ranges.

    Args:
        path: the float32 model.xml.
        sample: tokens of the texts that determine the ranges.
    """
    openvino = import_openvino()

    level = logging.getLogger("nncf").level
    nncf = import_nncf()

    logging.getLogger("nncf").setLevel(logging.ERROR)
    batches = [sample.padded(np.array([row])) for row in range(len(sample.lengths))]
    data = nncf.Dataset(batches, lambda pair: {"input_ids": pair[0], "attention_mask": pair[1]})
    # Without it, sums overflow on older processors. It costs weights one of their eight bits.
    overflow = nncf.OverflowFix.DISABLE if processor.has_wide_int8_sums() else nncf.OverflowFix.ENABLE
    try:
        # Its progress bars go to standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            return nncf.quantize(
                openvino.Core().read_model(path),
                data,
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.MIXED,
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
                subset_size=len(batches),
            )
    finally:
        logging.getLogger("nncf").setLevel(level)


def loss(reference: NDArray[np.float32], found: NDArray[np.float32]) -> dict[str, float]:
    """The loss of other vectors of the same texts: cosine to the unquantized ones, and the share of nearest texts kept.

    Args:
        reference, found: float32[n, dimensions].
    """
    reference, found = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (reference, found))
    cosine = (reference * found).sum(axis=1)
    most = min(NEIGHBOURS, len(reference) - 1)
    kept = [
        len(set(before) & set(after)) / max(1, most)
        for before, after in zip(_nearest(reference, most), _nearest(found, most), strict=True)
    ]
    return {
        "cosine_mean": round(float(cosine.mean()), 5),
        "cosine_min": round(float(cosine.min()), 5),
        "neighbours_kept": round(float(np.mean(kept)), 4) if most > 0 else 1.0,
    }


def _nearest(vectors: NDArray[np.float32], most: int) -> list[list[int]]:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    nearest: list[list[int]] = np.argsort(-similar, axis=1)[:, :most].tolist()
    return nearest
